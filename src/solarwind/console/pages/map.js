// The map: producers, the topics they fire on, the purposes of these, and the topics that those fire on. Its lines are as
// wide as what flows there; a node is focused on by a click or Enter, and then its chain alone is shown. It is made as narrow
// as the page; what does not fit is scrolled to, or dragged, and it can be made smaller and larger.
import { html, useEffect, useMemo, useRef, useSignal } from "../core/ui.js";
import { now } from "../core/clock.js";
import { purposes, topics } from "../core/facts.js";
import { count, plural, rate, short } from "../core/format.js";
import { pages, route, setQuery, to } from "../core/router.js";
import { Slices } from "../core/slices.js";
import { useAnswer } from "../parts/asked.js";
import { fitted } from "../parts/fitted.js";
import { flowsInto } from "../parts/flows.js";
import { layered } from "../parts/layers.js";
import { Empty, Failure, Page } from "../parts/page.js";
import { State } from "../parts/state.js";

const MAX_NODES = 100; // topics and purposes: the busiest topics,
const MAX_PURPOSES = 24; // and so many purposes of each, those that need a person and the busiest
const AGAIN_MS = 30_000;
const NODE = { width: 190, height: 46 };
const APART = { x: 55, y: 16 };
// What does not fit is narrowed, then shrunk, then narrowed and shrunk further, and then scrolled.
const NARROW = 0.85; // of a node's width
const NARROWEST = 0.72;
const SMALL = 0.8;
const SMALLEST = 0.7;
const ZOOM = { least: 0.25, most: 2, step: 1.25 };
const MARGIN = 12;
const PADDING = 12; // of a node, at each side
const BAD = new Set(["failing", "nobody up"]);

const idOf = (kind, name) => `${kind}:${name}`;
const widthOf = (perSecond) => 1 + Math.min(9, 2 * Math.log10(1 + (perSecond ?? 0)));

// Return the nodes by id, and the edges {from, to, rate}. Of `all` purposes those `drawn` are nodes of their own.
function graphOf(shown, all, drawn, flows) {
  const nodes = new Map();
  const edges = [];
  const more = new Map(); // by topic: how many are not drawn
  for (const each of shown)
    nodes.set(idOf("topic", each.topic), { kind: "topic", name: each.topic, says: rate(each.fired_per_s), href: pages.topic(each.topic), moves: each.fired_per_s > 0 });
  for (const each of all) {
    if (!nodes.has(idOf("topic", each.topic))) continue;
    if (!drawn.has(each.at)) {
      more.set(each.topic, (more.get(each.topic) ?? 0) + 1);
      continue;
    }
    const id = idOf("purpose", `${each.topic}/${each.purpose}`);
    const bad = BAD.has(each.state);
    const says = [
      bad ? `✕ ${each.state}` : each.exchange,
      each.versions.length > 1 && `${each.versions.length} versions`,
      each.pending > 0 && `${short(each.pending)} pending`,
      each.dead > 0 && `${short(each.dead)} dead`,
    ];
    nodes.set(id, { kind: "purpose", name: each.purpose, state: each.state, says: says.filter(Boolean).join(", "), href: pages.purpose(each.topic, each.purpose), bad, on: idOf("topic", each.topic), moves: each.rates?.settled > 0 || each.pending > 0 });
    edges.push({ from: idOf("topic", each.topic), to: id, rate: each.rates?.fired ?? 0, bad });
  }
  for (const [topic, number] of more) {
    const [on, id] = [idOf("topic", topic), idOf("more", topic)];
    nodes.set(id, { kind: "purpose", name: plural(number, "more purpose"), says: "see the topic", href: pages.topic(topic), on, moves: nodes.get(on).moves });
    edges.push({ from: on, to: id, rate: 0 });
  }
  for (const { from, to: topic, part } of flows) {
    const of = nodes.get(idOf("topic", topic));
    if (!of) continue;
    const id = from.producer ? idOf("producer", from.producer) : idOf("purpose", `${from.topic}/${from.purpose}`);
    if (from.producer && !nodes.has(id)) nodes.set(id, { kind: "producer", name: from.producer, says: "producer" });
    const fired = shown.find((each) => each.topic === topic).fired_per_s;
    if (from.producer && fired > 0) nodes.get(id).moves = true; // one of a topic that stands still stands alone
    if (nodes.has(id)) edges.push({ from: id, to: idOf("topic", topic), rate: fired * part });
  }
  return { nodes, edges };
}

// Return the names of the busiest topics, as many as can be drawn, and which of their purposes are.
function busiest(known, all) {
  const purposesOf = new Map();
  for (const each of all) {
    if (!purposesOf.has(each.topic)) purposesOf.set(each.topic, []);
    purposesOf.get(each.topic).push(each);
  }
  const ordered = [...known].sort((a, b) => b.fired_per_s - a.fired_per_s || b.fired - a.fired || a.topic.localeCompare(b.topic));
  const [names, drawn] = [new Set(), new Set()];
  for (const { topic } of ordered) {
    const own = chosen(purposesOf.get(topic) ?? []);
    if (names.size + drawn.size + 1 + own.length > MAX_NODES) break;
    names.add(topic);
    for (const { at } of own) drawn.add(at);
  }
  return { names, drawn };
}

function chosen(own) {
  if (own.length <= MAX_PURPOSES) return own;
  const rank = (each) => [BAD.has(each.state), each.rates?.settled ?? 0, each.pending, each.settled];
  const ranked = own.map((each) => [rank(each), each]);
  const compare = ([a], [b]) => b.map((value, at) => value - a[at]).find(Boolean) ?? 0;
  return ranked.sort(compare).slice(0, MAX_PURPOSES - 1).map(([, each]) => each); // one more stands for the others
}

// Return what leads to a node, and what it leads to.
function chainOf(id, edges) {
  const reached = new Set([id]);
  const follow = (from, ends) => {
    const left = [from];
    for (let at = left.pop(); at !== undefined; at = left.pop())
      for (const edge of edges)
        if (edge[ends[0]] === at && !reached.has(edge[ends[1]])) {
          reached.add(edge[ends[1]]);
          left.push(edge[ends[1]]);
        }
  };
  follow(id, ["from", "to"]);
  follow(id, ["to", "from"]);
  return reached;
}

// Return the nodes that hang together, each group with its edges.
function groupsOf(ids, edges) {
  const near = new Map(ids.map((id) => [id, []]));
  for (const edge of edges) {
    near.get(edge.from).push(edge);
    near.get(edge.to).push(edge);
  }
  const [groups, seen] = [[], new Set()];
  for (const id of ids) {
    if (seen.has(id)) continue;
    const group = { ids: [], edges: new Set() };
    const left = [id];
    seen.add(id);
    for (let at = left.pop(); at !== undefined; at = left.pop()) {
      group.ids.push(at);
      for (const edge of near.get(at)) {
        group.edges.add(edge);
        for (const end of [edge.from, edge.to]) {
          if (!seen.has(end)) left.push(end);
          seen.add(end);
        }
      }
    }
    groups.push({ ids: group.ids.sort(), edges: [...group.edges] });
  }
  return groups.sort((a, b) => b.ids.length - a.ids.length);
}

const shapeOf = ({ ids, edges }) => JSON.stringify([ids, edges.map(({ from, to: end }) => [from, end])]);

// Place one group below the other, in slices; `known` are the groups that were placed before, by their shapes.
async function placedAll(groups, known) {
  const slices = new Slices();
  const laid = { at: new Map(), points: new Map(), width: 0, height: MARGIN };
  for (const group of groups) {
    const shape = shapeOf(group);
    if (!known.has(shape)) known.set(shape, layered(group.ids, group.edges, NODE, APART, MARGIN));
    const { at, points, width, height } = known.get(shape);
    for (const [id, { x, y }] of at) laid.at.set(id, { x, y: y + laid.height - MARGIN });
    for (const [name, line] of points) laid.points.set(name, line.map(({ x, y }) => ({ x, y: y + laid.height - MARGIN })));
    laid.width = Math.max(laid.width, width);
    laid.height += height - MARGIN;
    await slices.next();
  }
  const shapes = new Set(groups.map(shapeOf));
  for (const shape of known.keys()) if (!shapes.has(shape)) known.delete(shape);
  return laid;
}

// Return the places of nodes and edges. Those of before stay until new ones are known.
function useLayout(ids, edges) {
  const found = useSignal(null);
  const known = useRef(new Map());
  const shape = shapeOf({ ids, edges });
  useEffect(() => {
    let over = false;
    placedAll(groupsOf(ids, edges), known.current).then((laid) => over || (found.value = laid));
    return () => (over = true);
  }, [shape]);
  return found.value;
}

export function FlowMap() {
  const all = purposes();
  const { focus, still } = route.value.query;
  const turn = Math.floor(now.value / AGAIN_MS);
  const known = topics();
  const { names, drawn } = useMemo(() => busiest(known, all), [turn, known.length, all.length]);
  const shown = known.filter((each) => names.has(each.topic));
  const { answer, error } = useAnswer(() => flowsInto(shown, all), [names]);
  const graph = graphOf(shown, all, drawn, answer ?? []);
  const chain = focus && graph.nodes.has(focus) ? chainOf(focus, graph.edges) : null;
  const moved = useRef(new Set()); // so that nothing goes because it rests for a second
  for (const [id, node] of graph.nodes) if (node.moves) moved.current.add(id).add(node.on ?? id); // and what it is on
  const kept = (id) => (chain ? chain.has(id) : still || moved.current.has(id));
  const ids = [...graph.nodes.keys()].filter(kept).sort();
  const edges = graph.edges.filter((each) => kept(each.from) && kept(each.to));
  const laid = useLayout(ids, edges);
  const actions = html`<button type="button" class="small" aria-pressed=${Boolean(still)} onClick=${() => setQuery({ still: still ? undefined : "too" })}>Also what stands still</button>
    ${focus && html`<button type="button" class="small" onClick=${() => setQuery({ focus: undefined })}>Show all</button>`}`;
  return html`<${Page} title="Map" actions=${actions}>
    ${error && html`<${Failure} error=${error} />`}
    ${focus && graph.nodes.has(focus) && html`<${Focused} node=${graph.nodes.get(focus)} />`}
    ${ids.length
      ? laid && html`<${Drawing} laid=${laid} nodes=${graph.nodes} ids=${ids} edges=${edges} focus=${focus} />`
      : html`<${Empty} command=${'solarwind fire video.uploaded \'{"name": "cat.mov"}\''}>Nothing moves now. What is fired, and where it goes, is drawn here:</${Empty}>`}
    <p class="quiet">A line is as wide as what flows there. Who fires is taken from the newest events of each topic${known.length > names.size ? `; of ${count(known.length)} topics the ${names.size} busiest are drawn` : ""}.</p>
  </${Page}>`;
}

const Focused = ({ node }) => html`<p class="line"><strong dir="auto">${node.name}</strong> ${node.state && html`<${State} name=${node.state} />`} <span class="quiet">${node.says}</span> ${node.href && html`<a class="button small" href=${node.href}>Open</a>`}</p>`;

function Drawing({ laid, nodes, ids, edges, focus }) {
  const place = useRef(null);
  const width = useSignal(0);
  const zoom = useSignal("fits"); // or "all" of it, or a number
  const more = useSignal(""); // at which side it goes on
  useEffect(() => {
    const observer = new ResizeObserver(([{ contentRect }]) => (width.value = Math.floor(contentRect.width)));
    observer.observe(place.current);
    return () => observer.disconnect();
  }, []);
  const between = (least, value, most) => Math.max(least, Math.min(most, value));
  const wanted = width.value / laid.width;
  const narrow = between(NARROWEST, wanted / between(SMALL, wanted / NARROW, 1), 1);
  const fit = width.value / (laid.width * narrow);
  const scale = { fits: between(SMALLEST, fit, 1), all: Math.min(fit, 1) }[zoom.value] ?? zoom.value;
  const note = () => {
    const { scrollLeft, scrollWidth, clientWidth } = place.current;
    more.value = `${scrollLeft > 1 ? "left" : ""} ${scrollLeft + clientWidth < scrollWidth - 1 ? "right" : ""}`.trim();
  };
  useEffect(note, [laid, scale, width.value]);
  const least = Math.min(ZOOM.least, fit); // all of it can be seen, however small
  const size = (scaled) => (zoom.value = between(least, scaled, ZOOM.most));
  const drawn = edges.filter((each) => laid.points.has(`${each.from} ${each.to}`));
  return html`<div class="filters zoom" role="group" aria-label="Size">
      <button type="button" class="small" aria-label="Smaller" onClick=${() => size(scale / ZOOM.step)} disabled=${scale <= least}>−</button>
      <output>${Math.round(scale * 100)} %</output>
      <button type="button" class="small" aria-label="Larger" onClick=${() => size(scale * ZOOM.step)} disabled=${scale >= ZOOM.most}>+</button>
      <button type="button" class="small" aria-pressed=${zoom.value === "fits"} onClick=${() => (zoom.value = "fits")}>As it fits</button>
      <button type="button" class="small" aria-pressed=${zoom.value === "all"} onClick=${() => (zoom.value = "all")}>All of it</button>
      ${more.value && html`<span class="quiet" role="status">It goes on to the ${more.value.replace(" ", " and the ")}: scroll, drag it, or make it smaller.</span>`}
    </div>
    <div class=${`map ${more.value}`} ref=${place} tabindex="0" role="region" aria-label="Map" onScroll=${note} onPointerDown=${drag}>
    <svg width=${laid.width * narrow * scale} height=${laid.height * scale} viewBox=${`0 0 ${laid.width * narrow} ${laid.height}`}>
      <g aria-hidden="true">${drawn.map((each) => html`<path key=${`${each.from} ${each.to}`} class=${each.bad ? "bad" : each.rate > 0 ? "moves" : ""} stroke-width=${widthOf(each.rate)} d=${curve(laid.points.get(`${each.from} ${each.to}`).map(({ x, y }) => ({ x: x * narrow, y })))}><title>${rate(each.rate)}</title></path>`)}</g>
      ${ids.filter((id) => laid.at.has(id)).map((id) => html`<${Node} key=${id} id=${id} node=${nodes.get(id)} at=${laid.at.get(id)} narrow=${narrow} focused=${id === focus} />`)}
    </svg>
  </div>`;
}

// A mouse that is held down moves what is shown; a finger does by itself.
function drag({ target, currentTarget: place, pointerType, clientX, clientY, button }) {
  if (pointerType !== "mouse" || button !== 0 || target.closest("a")) return;
  const [left, top] = [place.scrollLeft + clientX, place.scrollTop + clientY];
  const move = (event) => place.scrollTo(left - event.clientX, top - event.clientY);
  const end = () => removeEventListener("pointermove", move);
  addEventListener("pointermove", move);
  addEventListener("pointerup", end, { once: true });
  addEventListener("pointercancel", end, { once: true });
}

function Node({ id, node, at, narrow, focused }) {
  const width = NODE.width * narrow;
  return html`<a href=${to(["map"], { ...route.value.query, focus: id })} class=${`node ${node.kind} ${node.bad ? "bad" : ""} ${focused ? "focused" : ""}`} transform=${`translate(${at.x * narrow - width / 2} ${at.y - NODE.height / 2})`}>
    <title>${node.name} ${node.says}</title>
    <rect width=${width} height=${NODE.height} rx=${node.kind === "purpose" ? 23 : 6} />
    <text aria-hidden="true" x=${PADDING} y="19" class="name">${fitted(node.name, "600 13px", width - 2 * PADDING)}</text>${" "}<text aria-hidden="true" x=${PADDING} y="36">${fitted(node.says, `${node.bad ? 600 : 400} 12px`, width - 2 * PADDING)}</text>
  </a>`;
}

function curve([start, ...points]) {
  let path = `M${start.x} ${start.y}`;
  let last = start;
  for (const next of points) {
    const middle = (last.x + next.x) / 2;
    path += `C${middle} ${last.y} ${middle} ${next.y} ${next.x} ${next.y}`;
    last = next;
  }
  return path;
}
