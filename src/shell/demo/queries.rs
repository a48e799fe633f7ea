//! The SQL of the demo: three topics, three views, and what the screen reads of them.

use super::broker::Broker;

/// A view as the screen shows it.
pub(super) struct Shown {
    /// The view's name.
    pub(super) view: &'static str,
    /// What it is.
    pub(super) title: &'static str,
    /// The query of the screen, without its LIMIT.
    pub(super) query: &'static str,
}

/// The views in the order of the screen.
pub(super) const SHOWN: &[Shown] = &[
    Shown {
        view: "channel_bids",
        title: "bids per 10 seconds and channel",
        query: "SELECT window_start, channel, bids, average_price, highest_price \
                FROM channel_bids ORDER BY window_start DESC, bids DESC, channel",
    },
    Shown {
        view: "category_prices",
        title: "highest bid of an auction, on average per category",
        query: "SELECT category, auctions, average_highest_bid \
                FROM category_prices ORDER BY category",
    },
    Shown {
        view: "state_sellers",
        title: "who sells: auctions per state of the seller",
        query: "SELECT state, auctions, dearest, initial_bids \
                FROM state_sellers ORDER BY auctions DESC, state",
    },
];

/// Statements for a person who has just seen the screen. New views are over the tables: the broker
/// in this process keeps a few seconds of bids, too few for a view to begin with.
pub(super) const SUGGESTIONS: &[&str] = &[
    "SELECT * FROM state_sellers ORDER BY auctions DESC;",
    "CREATE MATERIALIZED VIEW city_auctions AS",
    "  SELECT p.city, count(*) AS auctions FROM auction a JOIN person p ON a.seller = p.id",
    "  GROUP BY p.city;",
    "SELECT * FROM city_auctions ORDER BY auctions DESC;",
    "SUBSCRIBE TO category_prices;",
    "\\d",
];

/// The statements that make sources and views, as they are printed and run.
pub(super) fn statements(broker: &Broker) -> Vec<String> {
    let with = |topic: &str| {
        format!(
            "WITH (\n  connector = 'kafka',\n  topic = '{}',\n  \
             properties.bootstrap.server = '{}',\n  scan.startup.mode = 'earliest'\n) \
             FORMAT PLAIN ENCODE JSON;",
            broker.topic(topic),
            broker.servers()
        )
    };
    vec![
        format!(
            "-- People and auctions are tables: their rows are kept and can be queried.\n\
             -- A column that is not named here is not even decoded.\n\
             CREATE TABLE person (\n  id bigint, name varchar, city varchar, state varchar,\n  \
             datetime timestamp,\n  WATERMARK FOR datetime AS datetime - INTERVAL '2 seconds'\n\
             ) APPEND ONLY {}",
            with("person")
        ),
        format!(
            "CREATE TABLE auction (\n  id bigint, itemname varchar, initialbid bigint, \
             seller bigint, category bigint,\n  datetime timestamp, expires timestamp,\n  \
             WATERMARK FOR datetime AS datetime - INTERVAL '2 seconds'\n) APPEND ONLY {}",
            with("auction")
        ),
        format!(
            "-- Bids are a source: nine of ten events are bids, and nobody asks for a single one.\n\
             -- A source stores nothing; views take what they need as it passes.\n\
             CREATE SOURCE bid (\n  auction bigint, bidder bigint, price bigint, \
             channel varchar,\n  datetime timestamp,\n  \
             WATERMARK FOR datetime AS datetime - INTERVAL '2 seconds'\n) {}",
            with("bid")
        ),
        "CREATE MATERIALIZED VIEW channel_bids AS\n\
         SELECT window_start, channel, count(*) AS bids,\n       \
         round(avg(price), 2) AS average_price, max(price) AS highest_price\n\
         FROM tumble(bid, datetime, INTERVAL '10 seconds')\n\
         WHERE channel IN ('Google', 'Facebook', 'Baidu', 'Apple')\n\
         GROUP BY window_start, channel;"
            .to_string(),
        "-- The bids are reduced to one row per auction ahead of the join, so that the join keeps\n\
         -- a row per auction and not one per bid.\n\
         CREATE MATERIALIZED VIEW category_prices AS\n\
         SELECT a.category, count(*) AS auctions,\n       \
         round(avg(b.highest), 2) AS average_highest_bid\n\
         FROM auction a\n\
         JOIN (SELECT auction, max(price) AS highest FROM bid GROUP BY auction) b\n  \
         ON a.id = b.auction\n\
         GROUP BY a.category;"
            .to_string(),
        "CREATE MATERIALIZED VIEW state_sellers AS\n\
         SELECT p.state, count(*) AS auctions, max(a.initialbid) AS dearest,\n       \
         sum(a.initialbid) AS initial_bids\n\
         FROM auction a JOIN person p ON a.seller = p.id\n\
         GROUP BY p.state;"
            .to_string(),
    ]
}
