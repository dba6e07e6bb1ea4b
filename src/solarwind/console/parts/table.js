// A table whose order and filter are in the address: `sort=-pending`, `q=text`. It has so many rows at a time, and draws
// anew those that are seen: what changes in the others is drawn when they are scrolled to.
import { Component, html, useSignal } from "../core/ui.js";
import { count } from "../core/format.js";
import { pages, route, setQuery } from "../core/router.js";

const ROWS = 100;
const NEAR = "300px"; // so that a row is drawn before it is seen

const rowsBy = new WeakMap(); // by their elements
const sight = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) rowsBy.get(target)?.sees(isIntersecting);
  },
  { rootMargin: NEAR },
);

class Row extends Component {
  #seen = true;
  #stale = false;

  #element = null;
  #watch = (element) => {
    if (this.#element) sight.unobserve(this.#element);
    this.#element = element;
    if (!element) return; // it goes
    rowsBy.set(element, this);
    sight.observe(element);
  };

  sees(seen) {
    this.#seen = seen;
    if (seen && this.#stale) this.forceUpdate();
  }
  shouldComponentUpdate() {
    this.#stale = !this.#seen;
    return this.#seen;
  }
  render({ row, columns, pick, keyOf }) {
    this.#stale = false;
    return html`<tr ref=${this.#watch}>
      ${pick && html`<td><${Pick} row=${row} pick=${pick} keyOf=${keyOf} /></td>`}
      ${columns.map(({ label: name, cell, value, number, wide }) => html`<td data-label=${name} class=${`${number ? "number" : ""} ${wide ? "wide" : ""}`}><div class="cell">${cell ? cell(row) : value(row)}</div></td>`)}
    </tr>`;
  }
}

// Columns that many tables have.
export const PURPOSE = { name: "purpose", label: "Purpose", value: (each) => each.purpose.toLowerCase(), cell: (each) => html`<a href=${pages.purpose(each.topic, each.purpose)} dir="auto" class="wrap">${each.purpose}</a>` };
export const TOPIC = { name: "topic", label: "Topic", value: (each) => each.topic, cell: (each) => html`<a href=${pages.topic(each.topic)} class="wrap">${each.topic}</a>` };

// `columns` are {name, label, value, cell, number, wide}: `value` is sorted by and `cell` shown, by default the
// same; one that is `wide` has a line of its own on a phone.
export function Table({ label, columns, rows, keyOf, empty, sort: ordered = columns[0].name, pick }) {
  const shown = useSignal(ROWS);
  const { sort = ordered } = route.value.query;
  const first = inOrder(rows, columns, sort, shown.value);
  if (!rows.length) return empty ?? html`<p class="quiet">None.</p>`;
  return html`<div class="table" tabindex="0" role="region" aria-label=${label}>
    <table>
      <thead><tr>
        ${pick && html`<th scope="col"><span class="unseen">Selected</span></th>`}
        ${columns.map((column) => html`<${Heading} column=${column} sort=${sort} />`)}
      </tr></thead>
      <tbody>${first.map((row) => html`<${Row} key=${keyOf(row)} row=${row} columns=${columns} pick=${pick} keyOf=${keyOf} />`)}</tbody>
    </table>
    ${rows.length > shown.value && html`<p class="more">
      ${count(shown.value)} of ${count(rows.length)} are shown.
      <button type="button" class="small" onClick=${() => (shown.value += 5 * ROWS)}>Show more</button>
    </p>`}
  </div>`;
}

function Pick({ row, pick, keyOf }) {
  const key = keyOf(row);
  const change = () => {
    const picked = new Set(pick.value);
    picked.delete(key) || picked.add(key);
    pick.value = picked;
  };
  return html`<input type="checkbox" aria-label=${`Select ${key}`} checked=${pick.value.has(key)} onChange=${change} />`;
}

function Heading({ column, sort }) {
  const name = sort.replace(/^-/, "");
  const active = name === column.name;
  const down = sort.startsWith("-");
  const next = active && !down ? `-${column.name}` : active ? column.name : column.number ? `-${column.name}` : column.name;
  return html`<th scope="col" class=${column.number ? "number" : ""} aria-sort=${active ? (down ? "descending" : "ascending") : undefined}>
    ${column.value
      ? html`<button type="button" class="sort" onClick=${() => setQuery({ sort: next })}>${column.label}<span aria-hidden="true">${active ? (down ? "\u00a0↓" : "\u00a0↑") : ""}</span></button>`
      : column.label}
  </th>`;
}

// Return the first of the rows in an order, so many: what is not shown need not be sorted.
function inOrder(rows, columns, sort, size) {
  const column = columns.find(({ name, value }) => value && name === sort.replace(/^-/, ""));
  if (!column) return rows.slice(0, size);
  const way = sort.startsWith("-") ? -1 : 1;
  const compare = ([a], [b]) => {
    if (a === b) return 0;
    if (a === null || a === undefined) return 1; // what is not known comes last, whichever way
    if (b === null || b === undefined) return -1;
    return (a < b ? -1 : 1) * way;
  };
  let first = [];
  for (const row of rows) {
    const one = [column.value(row), row];
    if (first.length >= 2 * size && compare(one, first[size - 1]) >= 0) continue;
    first.push(one);
    if (first.length >= 3 * size) first = first.sort(compare).slice(0, size);
    else if (first.length === 2 * size) first.sort(compare);
  }
  return first.sort(compare).slice(0, size).map(([, row]) => row);
}

// The field by which a list is narrowed.
export function Filter({ label }) {
  return html`<input class="filter" type="search" placeholder=${label} aria-label=${label} value=${route.value.query.q ?? ""}
    onInput=${(event) => setQuery({ q: event.target.value })} />`;
}

export const filtered = (rows, text) => {
  const wanted = (route.value.query.q ?? "").toLowerCase();
  return wanted ? rows.filter((row) => text(row).toLowerCase().includes(wanted)) : rows;
};
