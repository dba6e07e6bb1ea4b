// Where the nodes of a graph stand that flows from left to right: in layers, with few crossings, near to what they belong to.
const SWEEPS = 8; // in which layers are put in order
const MOVES = 12; // in which nodes come nearer to their neighbours
const BEND = 10; // the height that a line has where it passes a layer

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

// Return {at, points, width, height}: the middle of each node, and of each edge `from to` the points that it goes through.
// `edges` are {from, to}; `node` is {width, height}, and `apart` {x, y} between two.
export function layered(ids, edges, node, apart, margin) {
  const ways = forward(ids, edges);
  const rank = ranks(ids, ways);
  const { layers, lines, near } = withBends(ids, ways, rank);
  order(layers, near);
  const y = heights(layers, near, (id) => (rank.has(id) ? node.height : BEND) + apart.y);
  const top = Math.min(...y.values()) - node.height / 2 - margin;
  const x = (layer) => margin + node.width / 2 + layer * (node.width + apart.x);
  const at = new Map(ids.map((id) => [id, { x: x(rank.get(id)), y: y.get(id) - top }]));
  const points = new Map();
  for (const { from, to, turned, bends } of lines) {
    const line = [
      { x: at.get(from).x + node.width / 2, y: at.get(from).y },
      ...bends.map(({ id, layer }) => ({ x: x(layer), y: y.get(id) - top })),
      { x: at.get(to).x - node.width / 2, y: at.get(to).y },
    ];
    points.set(turned ? `${to} ${from}` : `${from} ${to}`, turned ? line.reverse() : line);
  }
  const low = Math.max(...[...at.values()].map((each) => each.y));
  return { at, points, width: x(layers.length - 1) + node.width / 2 + margin, height: low + node.height / 2 + margin };
}

// Return the edges, with those turned round that lead back to where one came from.
function forward(ids, edges) {
  const out = new Map(ids.map((id) => [id, []]));
  const fed = new Set();
  for (const { from, to } of new Map(edges.map((each) => [`${each.from} ${each.to}`, each])).values()) {
    out.get(from).push(to);
    fed.add(to);
  }
  const ways = [];
  const state = new Map(); // 1 on the way to here, 2 done
  const visit = (start) => {
    const path = [[start, 0]];
    state.set(start, 1);
    while (path.length) {
      const step = path.at(-1);
      const to = out.get(step[0])[step[1]++];
      if (to === undefined) {
        state.set(step[0], 2);
        path.pop();
      } else {
        const turned = state.get(to) === 1;
        ways.push(turned ? { from: to, to: step[0], turned } : { from: step[0], to, turned });
        if (!state.has(to)) {
          state.set(to, 1);
          path.push([to, 0]);
        }
      }
    }
  };
  for (const id of [...ids.filter((each) => !fed.has(each)), ...ids]) if (!state.has(id)) visit(id);
  return ways;
}

// Return the layer of each node: behind all that leads to it, and what nothing leads to right before what it leads to.
function ranks(ids, ways) {
  const [rank, open] = [new Map(ids.map((id) => [id, 0])), new Map(ids.map((id) => [id, 0]))];
  const out = new Map(ids.map((id) => [id, []]));
  for (const { from, to } of ways) {
    out.get(from).push(to);
    open.set(to, open.get(to) + 1);
  }
  const fed = new Set(ids.filter((id) => open.get(id)));
  const left = ids.filter((id) => !open.get(id));
  for (let id = left.pop(); id !== undefined; id = left.pop())
    for (const to of out.get(id)) {
      rank.set(to, Math.max(rank.get(to), rank.get(id) + 1));
      open.set(to, open.get(to) - 1);
      if (!open.get(to)) left.push(to);
    }
  for (const id of ids) if (!fed.has(id) && out.get(id).length) rank.set(id, Math.min(...out.get(id).map((to) => rank.get(to))) - 1);
  return rank;
}

// Return the layers with the bends of lines that pass some, these lines, and what is next to what on both sides.
function withBends(ids, ways, rank) {
  const layers = Array.from({ length: Math.max(...rank.values()) + 1 }, () => []);
  const near = new Map();
  const add = (id, layer) => {
    layers[layer].push(id);
    near.set(id, { before: [], after: [] });
  };
  for (const id of ids) add(id, rank.get(id));
  const lines = ways.map((way, number) => {
    const bends = [];
    let last = way.from;
    const join = (id) => {
      near.get(last).after.push(id);
      near.get(id).before.push(last);
      last = id;
    };
    for (let layer = rank.get(way.from) + 1; layer < rank.get(way.to); layer += 1) {
      const id = `${number}|${layer}`; // the name of no node: those have a kind
      add(id, layer);
      bends.push({ id, layer });
      join(id);
    }
    join(way.to);
    return { ...way, bends };
  });
  return { layers, lines, near };
}

// Put each layer in the order of what its nodes are next to, from the left and from the right in turn.
function order(layers, near) {
  const place = new Map();
  const note = (layer) => layer.forEach((id, index) => place.set(id, index));
  layers.forEach(note);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const side = sweep % 2 ? "after" : "before";
    for (const layer of sweep % 2 ? [...layers].reverse() : layers) {
      const wanted = new Map(layer.map((id) => [id, near.get(id)[side].length ? mean(near.get(id)[side].map((each) => place.get(each))) : place.get(id)]));
      layer.sort((a, b) => wanted.get(a) - wanted.get(b));
      note(layer);
    }
  }
}

// Return how far down each is: as near to its neighbours as the others of its layer let it.
function heights(layers, near, sizeOf) {
  const y = new Map();
  for (const layer of layers) {
    let at = 0;
    for (const id of layer) {
      y.set(id, at + sizeOf(id) / 2);
      at += sizeOf(id);
    }
  }
  for (let move = 0; move < MOVES; move += 1)
    for (const layer of move % 2 ? [...layers].reverse() : layers) {
      const wanted = layer.map((id) => {
        const { before, after } = near.get(id);
        const all = move < MOVES - 2 ? (move % 2 ? after : before) : [...before, ...after];
        return all.length ? mean(all.map((each) => y.get(each))) : y.get(id);
      });
      const gap = (index) => (sizeOf(layer[index - 1]) + sizeOf(layer[index])) / 2;
      const [down, up] = [[...wanted], [...wanted]];
      for (let index = 1; index < layer.length; index += 1) down[index] = Math.max(down[index], down[index - 1] + gap(index));
      for (let index = layer.length - 1; index > 0; index -= 1) up[index - 1] = Math.min(up[index - 1], up[index] - gap(index));
      layer.forEach((id, index) => y.set(id, (down[index] + up[index]) / 2));
    }
  return y;
}
