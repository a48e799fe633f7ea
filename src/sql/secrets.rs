//! Secrets in the text of a definition, as passwords of brokers are: whoever shows it masks them.

use sqlparser::tokenizer::{Token, Tokenizer, Word};

use super::dialect::DIALECT;

/// What stands in place of a secret.
const MASK: &str = "'********'";

/// Whether the value of an option is nobody's business: passwords, client secrets, private keys.
fn is_secret(option: &str) -> bool {
    let option = option.to_ascii_lowercase();
    ["password", "secret", "key.pem", "token", "sasl.jaas.config", "private.key", "private_key"]
        .iter()
        .any(|part| option.contains(part))
}

/// The text with the values of secret options masked.
pub fn mask_secrets(text: &str) -> String {
    let Ok(tokens) = Tokenizer::new(&DIALECT, text).with_unescape(false).tokenize() else {
        return text.to_owned();
    };
    let mut out = String::with_capacity(text.len());
    // The name in front of an equals sign, as far as it is read.
    let mut name = String::new();
    let mut equals = false;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            // The name of a secret says nothing.
            Token::Word(word) if equals && names_secret(word, &tokens[at + 1..]) => {
                equals = false;
                name.clear();
            }
            Token::Whitespace(_) => {}
            Token::Eq => equals = !name.is_empty(),
            Token::SingleQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::DollarQuotedString(_)
            | Token::Word(_)
            | Token::Number(..)
                if equals =>
            {
                let hidden = is_secret(&name);
                equals = false;
                name.clear();
                if hidden {
                    out.push_str(MASK);
                    continue;
                }
            }
            Token::Word(word) => name.push_str(&word.value),
            Token::SingleQuotedString(text) => name.push_str(text),
            Token::Period => name.push('.'),
            _ => {
                equals = false;
                name.clear();
            }
        }
        out.push_str(&token.to_string());
    }
    out
}

/// Whether a value is `SECRET name`.
fn names_secret(word: &Word, rest: &[Token]) -> bool {
    let next = rest.iter().find(|token| !matches!(token, Token::Whitespace(_)));
    let bare = word.quote_style.is_none() && word.value.eq_ignore_ascii_case("secret");
    bare && matches!(next, Some(Token::Word(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_nothing_else() {
        let text = "CREATE TABLE t (password text) WITH (connector = 'kafka',\n  \
                    properties.sasl.username = 'bob', properties.sasl.password='p''w' , \
                    'properties.ssl.key.password' = $$x$$, \"properties.ssl.key.pem\" = abc, \
                    topic = 'password') FORMAT PLAIN ENCODE JSON";
        let expected = "CREATE TABLE t (password text) WITH (connector = 'kafka',\n  \
                    properties.sasl.username = 'bob', properties.sasl.password='********' , \
                    'properties.ssl.key.password' = '********', \"properties.ssl.key.pem\" = \
                    '********', topic = 'password') FORMAT PLAIN ENCODE JSON";
        assert_eq!(mask_secrets(text), expected);
        let named = "CREATE TABLE t (a text) WITH (sasl.password = SECRET pw, b.token = secret)";
        let expected =
            "CREATE TABLE t (a text) WITH (sasl.password = SECRET pw, b.token = '********')";
        assert_eq!(mask_secrets(named), expected);
        let view = "SELECT a FROM t WHERE b = 'x' AND c='y''z' -- password = 'x'";
        assert_eq!(mask_secrets(view), view);
    }
}
