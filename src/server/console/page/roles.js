// Who may come, and what they may do.

import { rows } from "./api.js";
import { fill, h, problem, sqlLink, top } from "./dom.js";
import { every } from "./poll.js";
import { table } from "./table.js";

const ROLES = `SELECT r.rolname AS name, r.rolcanlogin AS login, r.rolsuper AS super,
    r.rolcreaterole AS creates, r.rolconnlimit AS connections, r.rolvaliduntil AS until,
    (SELECT string_agg(g.rolname, ', ' ORDER BY g.rolname) FROM pg_auth_members m
      JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid) AS groups
  FROM pg_roles r ORDER BY r.rolname`;

const GRANTS = `SELECT c.relname AS name, pg_get_userbyid(c.relowner) AS owner,
    array_to_string(c.relacl, ', ') AS granted
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'headwater') AND c.relkind <> 'i'
  ORDER BY c.relname`;

const NEW = `CREATE ROLE ann LOGIN PASSWORD 'a good one';
GRANT SELECT ON ALL TABLES IN SCHEMA public TO ann;`;

const yes = (value) => value === "t" || value === "true" ? "yes" : "";

/** The page. */
export function roles(main) {
  const wrong = h("div");
  const shown = table([
    { title: "Role", cell: (x) => x.name },
    { title: "Logs in", cell: (x) => yes(x.login) },
    { title: "Superuser", cell: (x) => yes(x.super) },
    { title: "Makes roles", cell: (x) => yes(x.creates) },
    { title: "Connections", num: true,
      cell: (x) => x.connections === "-1" ? "any" : x.connections },
    { title: "Password until", cell: (x) => x.until ?? "" },
    { title: "Member of", cell: (x) => x.groups ?? "" },
  ], { key: (x) => x.name, caption: "Roles" });
  const granted = table([
    { title: "Relation", cell: (x) => x.name },
    { title: "Owner", cell: (x) => x.owner },
    { title: "Granted", cell: (x) => x.granted ?? "" },
  ], { key: (x) => x.name, caption: "Grants", tall: true });
  const none = h("p", { class: "soft" }, "Nothing is defined, so nothing is granted.");
  fill(main, top("Roles", sqlLink("New role in SQL", NEW)), wrong,
    h("section", { class: "card" }, shown.element),
    h("section", { class: "card" }, h("h2", {}, "Owners and grants"), none, granted.element));
  return every(5000, async (signal) => {
    shown.show(await rows(ROLES, { signal }));
    const all = await rows(GRANTS, { signal });
    granted.element.hidden = !all.length;
    none.hidden = all.length > 0;
    granted.show(all);
  }, (error) => fill(wrong, error && problem(error)));
}
