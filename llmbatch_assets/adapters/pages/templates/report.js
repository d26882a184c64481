"use strict";
(() => {
  // The field order of ItemRow.
  const [KEY, ROW, GROUP, END, CAUSE, ATTEMPTS, SCORE, TOKENS, COST, TEXT, REASONS, CONTEXT, ARTIFACT] = Array(13).keys();
  const ENDS = { accepted: "accepted", failed: "failed", missing: "not attempted" };
  const MANY_GROUPS = 300;
  const byId = (id) => document.getElementById(id);
  const table = byId("items-table");
  const body = table.tBodies[0];
  const controls = { search: byId("search"), end: byId("end"), group: byId("group"), size: byId("size") };
  const rows = JSON.parse(byId("rows").textContent);
  const texts = new Array(rows.length);
  let found = rows.map((_, index) => index);
  let sorted = { field: null, down: false };
  let page = 0;

  // Text from tables and models must only become text nodes.
  function element(name, text, className) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function option(select, value, text) {
    const made = element("option", text);
    made.value = value;
    select.append(made);
  }

  function textOf(index) {
    const row = rows[index];
    texts[index] ??= [KEY, GROUP, CAUSE, TEXT, REASONS, CONTEXT].map((field) => row[field]).join("\n").toLowerCase();
    return texts[index];
  }

  function endOf(row) {
    return row[CAUSE] ? `${row[END]}: ${row[CAUSE]}` : row[END];
  }

  function fillFilters() {
    const ends = new Set(rows.map((row) => row[END]));
    for (const end of Object.keys(ENDS)) if (ends.has(end)) option(controls.end, end, ENDS[end]);
    const causes = new Set(rows.filter((row) => row[CAUSE]).map(endOf));
    for (const cause of [...causes].sort()) option(controls.end, cause, cause);
    const groups = new Set(rows.map((row) => row[GROUP]));
    if (groups.size > 1 && groups.size <= MANY_GROUPS) {
      for (const group of groups) option(controls.group, `=${group}`, group);
    } else {
      controls.group.parentElement.hidden = true;
    }
  }

  function compare(first, second) {
    const [one, other] = [rows[first][sorted.field], rows[second][sorted.field]];
    if (one === other) return first - second;
    if (one === null || one === "") return 1;
    if (other === null || other === "") return -1;
    return (one < other ? -1 : 1) * (sorted.down ? -1 : 1);
  }

  function filter() {
    const terms = controls.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const end = controls.end.value;
    const group = controls.group.value;
    found = [];
    rows.forEach((row, index) => {
      if (end && row[END] !== end && endOf(row) !== end) return;
      if (group && `=${row[GROUP]}` !== group) return;
      if (terms.length && !terms.every((term) => textOf(index).includes(term))) return;
      found.push(index);
    });
    if (sorted.field !== null) found.sort(compare);
    page = 0;
    show();
  }

  function number(value, digits) {
    return value === null ? "" : value.toLocaleString("en", { maximumFractionDigits: digits });
  }

  function details(row) {
    const cell = element("td");
    cell.colSpan = table.tHead.rows[0].cells.length;
    const named = { Output: TEXT, "Judge's reasons": REASONS, Input: CONTEXT };
    for (const [name, field] of Object.entries(named)) {
      if (row[field]) cell.append(element("h3", field === TEXT && row[END] === "failed" ? "Error" : name), element("pre", row[field]));
    }
    const folder = row[END] === "failed" ? table.dataset.failures : table.dataset.outputs;
    if (row[ARTIFACT]) {
      const line = element("p", "Full record (JSON): ");
      const name = element(folder ? "a" : "code", row[ARTIFACT]);
      if (folder) name.href = folder + encodeURIComponent(row[ARTIFACT]);
      line.append(name);
      cell.append(line);
    }
    const line = element("tr", undefined, "more");
    line.append(cell);
    return line;
  }

  function toggle(button, line, row) {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) line.nextElementSibling.remove();
    else line.after(details(row));
  }

  function tableRow(row) {
    const line = element("tr");
    const key = element("td");
    const button = element("button", row[KEY]);
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    button.addEventListener("click", () => toggle(button, line, row));
    key.append(button);
    const outcome = element("td");
    outcome.append(element("span", ENDS[row[END]] ?? row[END], `end ${row[END]}`));
    if (row[CAUSE]) outcome.append(document.createElement("br"), element("span", row[CAUSE], "soft"));
    const beginning = [...row[TEXT].replace(/\s+/g, " ")];
    const preview = beginning.length > 140 ? `${beginning.slice(0, 140).join("")}…` : beginning.join("");
    const text = element("td", undefined, "text preview");
    text.append(element("span", preview));
    line.append(
      key,
      element("td", number(row[ROW], 0), "n wide-only"),
      element("td", row[GROUP], "text group wide-only"),
      outcome,
      element("td", number(row[SCORE], 2), "n"),
      element("td", number(row[ATTEMPTS], 0), "n wide-only"),
      element("td", number(row[TOKENS], 0), "n wide-only"),
      element("td", number(row[COST], 6), "n wide-only"),
      text,
    );
    return line;
  }

  function show() {
    const size = Number(controls.size.value);
    const pages = Math.max(1, Math.ceil(found.length / size));
    page = Math.min(Math.max(0, page), pages - 1);
    const first = page * size;
    const shown = found.slice(first, first + size);
    body.replaceChildren(...shown.map((index) => tableRow(rows[index])));
    const all = found.length === rows.length ? "" : ` of ${number(rows.length, 0)}`;
    const range = pages > 1 ? `, showing ${number(first + 1, 0)} to ${number(first + shown.length, 0)}` : "";
    byId("status").textContent = `${number(found.length, 0)}${all} items${range}`;
    byId("first").disabled = byId("previous").disabled = page === 0;
    byId("next").disabled = byId("last").disabled = page === pages - 1;
  }

  function goTo(id, target) {
    byId(id).addEventListener("click", () => {
      page = target();
      show();
    });
  }

  function sortBy(heading) {
    const field = Number(heading.dataset.field);
    sorted = { field, down: sorted.field === field && !sorted.down };
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
    filter();
  }

  // The fragment #item=KEY, to which Dagster links, shows one item.
  function showLinkedItem() {
    const key = new URLSearchParams(location.hash.slice(1)).get("item");
    if (!key) return;
    controls.search.value = key;
    filter();
    body.querySelector("button")?.click();
    table.scrollIntoView();
  }

  let timer;
  controls.search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(filter, 120);
  });
  controls.end.addEventListener("change", filter);
  controls.group.addEventListener("change", filter);
  controls.size.addEventListener("change", filter);
  goTo("first", () => 0);
  goTo("previous", () => page - 1);
  goTo("next", () => page + 1);
  goTo("last", () => Infinity);
  for (const heading of table.tHead.rows[0].cells) heading.querySelector("button").addEventListener("click", () => sortBy(heading));
  fillFilters();
  filter();
  byId("items-tools").hidden = false;
  showLinkedItem();
  addEventListener("hashchange", showLinkedItem);
})();
