// A client of Solar Wind in plain JavaScript, written from docs/PROTOCOL.md alone. It needs nothing but Node: 22 or
// newer, or 20 with --experimental-websocket. A server that asks for a token gets $SOLARWIND_TOKEN.
//
//   node client.mjs ws://127.0.0.1:7400 fire video.uploaded '{"name": "cat.mov"}' [KEY]
//   node client.mjs ws://127.0.0.1:7400 fire video.uploaded -               an event for each line of standard input
//   node client.mjs ws://127.0.0.1:7400 listen video.uploaded "Look at it" [direct|fanout|keyed]
//
// In a program of your own:
//
//   const wind = await new SolarWind("ws://127.0.0.1:7400").connect();
//   const id = await wind.fire("video.uploaded", { name: "cat.mov" }, { key: "cat" });     // awaited: accepted
//   await wind.on("video.uploaded", "Encode", { concurrency: 4 }, async (event) => {
//     event.fire("video.encoded", await encode(event.payload));      // accepted together with this event's settle
//   });
//   await wind.close();

import { createHash, randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { basename } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const AGAIN = new Set(["busy", "unavailable", "store"]); // what may go better later
const MOST_TOGETHER = 1 << 20; // bytes of messages in one WebSocket message
const MOST_MESSAGES = 16_384; // likewise
const MOST_UNACCEPTED = 64 << 20; // bytes that were fired and not accepted
const JSON_TYPE = "application/json";
const IS_JSON = /^[\w!#$&^.+-]+\/([\w!#$&^.-]+\+)?json[ \t]*(;|$)/i; // or such as application/geo+json; v=1
const MACHINE = hostname();
const NO_WEBSOCKET = "expected a WebSocket, got none: take Node 22 or newer, or 20 with --experimental-websocket";
const SECRET = randomBytes(32); // the server knows by it whose events are sent again
const AUTHOR = createHash("sha256").update(SECRET).digest().subarray(0, 12);
const PROCESS = `${basename(process.argv[1] ?? "node")}:${process.pid}`;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class SolarWindError extends Error {
  constructor(code, text) { super(text); this.code = code; }
}
/** Thrown by a handler: this event again in so many seconds, and the attempt does not count. */
export class Later extends Error {
  constructor(seconds) { super(`again in ${seconds} s`); this.seconds = seconds; }
}
/** Thrown by a handler: no attempt at this event can succeed. */
export class Reject extends Error {}

// --- msgpack: what the protocol needs of it. Integers beyond 2^53 are BigInt ---------------------------------------

function pack(value) {
  const parts = [];
  const head = (type, size = 0, write = "fill", number = type) => {
    const bytes = Buffer.alloc(1 + size, type);
    if (size) bytes[write](number, 1);
    parts.push(bytes);
  };
  const put = (value) => {
    if (value === null || value === undefined) head(0xc0);
    else if (typeof value === "boolean") head(value ? 0xc3 : 0xc2);
    else if (typeof value === "bigint" || Number.isSafeInteger(value)) {
      if (value >= 0 && value < 128) head(Number(value));
      else if (value >= 0) head(0xcf, 8, "writeBigUInt64BE", BigInt(value));
      else head(0xd3, 8, "writeBigInt64BE", BigInt(value));
    } else if (typeof value === "number") head(0xcb, 8, "writeDoubleBE", value);
    else if (typeof value === "string" || value instanceof Uint8Array) {
      const bytes = Buffer.from(value);
      head(typeof value === "string" ? 0xdb : 0xc6, 4, "writeUInt32BE", bytes.length);
      parts.push(bytes);
    } else if (Array.isArray(value)) {
      head(0xdd, 4, "writeUInt32BE", value.length);
      value.forEach(put);
    } else {
      head(0xdf, 4, "writeUInt32BE", Object.keys(value).length);
      for (const entry of Object.entries(value)) entry.forEach(put);
    }
  };
  put(value);
  return Buffer.concat(parts);
}

function unpack(data) {
  let at = 0;
  const take = (size) => (at += size) - size;
  const uint = (size) => data.readUIntBE(take(size), size);
  const whole = (big) => (Number.isSafeInteger(Number(big)) ? Number(big) : big);
  const bytes = (size) => data.subarray(take(size), at);
  const text = (size) => bytes(size).toString();
  const list = (size) => Array.from({ length: size }, read);
  const map = (size) => new Map(Array.from({ length: size }, () => [read(), read()]));
  function read() {
    const type = uint(1);
    if (type < 0x80) return type;
    if (type < 0x90) return map(type & 15);
    if (type < 0xa0) return list(type & 15);
    if (type < 0xc0) return text(type & 31);
    if (type >= 0xe0) return type - 256;
    if (type <= 0xc3) return [null, undefined, false, true][type - 0xc0];
    if (type <= 0xc6) return bytes(uint(1 << (type - 0xc4)));
    if (type === 0xca) return data.readFloatBE(take(4));
    if (type === 0xcb) return data.readDoubleBE(take(8));
    if (type === 0xcf) return whole(data.readBigUInt64BE(take(8)));
    if (type === 0xd3) return whole(data.readBigInt64BE(take(8)));
    if (type >= 0xcc && type <= 0xce) return uint(1 << (type - 0xcc));
    if (type >= 0xd0 && type <= 0xd2) return data.readIntBE(take(1 << (type - 0xd0)), 1 << (type - 0xd0));
    if (type >= 0xd9 && type <= 0xdb) return text(uint(1 << (type - 0xd9)));
    if (type >= 0xdc) return (type < 0xde ? list : map)(uint(2 << (type & 1)));
    throw new SolarWindError("protocol", `expected msgpack, got type 0x${type.toString(16)}`);
  }
  return read();
}

// --- batches -------------------------------------------------------------------------------------------------------

function makeId(timeNs, producer, number) {
  const fraction = ((timeNs % 1_000_000n) * 4096n) / 1_000_000n;
  const high = ((timeNs / 1_000_000n) << 16n) | (7n << 12n) | fraction;
  const id = (high << 64n) | (2n << 62n) | (BigInt(producer) << 30n) | BigInt(number);
  return id.toString(16).padStart(32, "0").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

let latest = 0n;

/** ns since 1970, later each time than before: ids sort as they were made. */
function now() {
  const time = BigInt(Date.now()) * 1_000_000n;
  return (latest = time > latest ? time : latest + 245n);
}

function makeEvent(payload, { key, id, cause, extensions }) {
  const isBytes = payload instanceof Uint8Array;
  const data = isBytes ? payload : Buffer.from(JSON.stringify(payload ?? null));
  const timeNs = now();
  return { data, content: isBytes ? "application/octet-stream" : JSON_TYPE, timeNs, key, id, cause, extensions };
}

function seal(topic, events, producer, first) {
  const all = (name) => events.map((event) => event[name] ?? null);
  const column = (name) => (events.some((event) => event[name] != null) ? all(name) : null);
  const causes = [...new Set(all("cause"))].filter(Boolean);
  const times = events.map((event) => event.timeNs - events[0].timeNs);
  const sizes = events.map((event) => event.data.length);
  const causedBy = causes.length ? events.map((event) => causes.indexOf(event.cause)) : null;
  const known = [3, topic, producer, first, events.length, MACHINE, PROCESS, AUTHOR, events[0].timeNs, times, sizes];
  const said = [all("content"), column("key"), column("id"), causes, causedBy, null, null, column("extensions")];
  const header = pack([...known, ...said]);
  const size = Buffer.alloc(4);
  size.writeUInt32LE(header.length);
  return Buffer.concat([size, header, ...all("data")]);
}

/** A function from an event's index in the batch, and how often it was tried, to the event as handlers get it. */
function openBatch(data) {
  const body = 4 + data.readUInt32LE(0);
  const header = unpack(data.subarray(4, body));
  const [, topic, producer, first, , machine, process, , time, times, sizes, content = JSON_TYPE, ...columns] = header;
  const [keys, ids, causes, causedBy, , , extensions] = columns;
  const starts = [body];
  for (const size of sizes) starts.push(starts.at(-1) + size);
  return (index, tried) => {
    const timeNs = BigInt(time) + BigInt(times[index]);
    const id = ids?.[index] ?? makeId(timeNs, producer, first + index);
    const cause = causes?.[causedBy?.[index]] ?? ["application", process];
    const bytes = data.subarray(starts[index], starts[index + 1]);
    const contentType = Array.isArray(content) ? content[index] : content;
    return {
      ...{ id, topic, key: keys?.[index] ?? null, timeNs, time: new Date(Number(timeNs / 1_000_000n)) },
      extensions: extensions?.[index] ?? {},
      ...{ machine, process, cause, root: cause[4] ?? id, attempt: tried + 1, bytes, contentType },
      get payload() {
        if (!IS_JSON.test(contentType)) return bytes;
        try {
          return JSON.parse(bytes.toString());
        } catch (error) {
          throw new Reject(`expected JSON: ${error.message}`);
        }
      },
    };
  };
}

function positionsOf(edges) {
  const positions = [];
  for (let at = 0; at < edges.length; at += 2)
    for (let position = edges[at]; position < edges[at + 1]; position++) positions.push(position);
  return positions;
}

function edgesOf(positions) {
  const edges = [];
  for (const position of positions.toSorted((one, other) => one - other)) {
    if (edges.at(-1) === position) edges[edges.length - 1]++;
    else edges.push(position, position + 1);
  }
  return edges;
}

// --- the client ----------------------------------------------------------------------------------------------------

export class SolarWind {
  #url; #token; #socket = null; #welcome = null; #timer; #heard = 0; #pinged = 0; #closed = false;
  #up = false; // everything has joined again, and what is fired goes out at once
  #last = 0; #asked = new Map(); #unaccepted = new Map(); #unacceptedBytes = 0; // by ref
  #out = []; #outBytes = 0; // messages that go out at the end of this turn
  #turn = new Map(); // what was fired in this turn, by topic
  #numbers = new Map(); // by topic: the producer, and the next event's number
  #seats = new Map(); // instances, by number

  constructor(url, { token = process.env.SOLARWIND_TOKEN } = {}) {
    this.#url = `${url.replace(/\/+$/, "")}/v1/connect`;
    this.#token = token ?? null;
  }

  /** Throws if there is no server now. From here on it comes back by itself. */
  async connect() {
    await this.#dial();
    this.#up = true;
    this.#timer = setInterval(() => this.#tick(performance.now()), 100);
    return this;
  }

  /** Fire an event. The promise gives its id once it is accepted; nobody need wait for it. */
  fire(topic, payload, options = {}) {
    const fired = new Promise((resolve, reject) => {
      const event = { ...makeEvent(payload, options), resolve, reject };
      if (this.#closed || !this.#welcome) throw new SolarWindError("unavailable", "it is not connected");
      if (event.data.length > this.#welcome.payloadBytes) throw new SolarWindError("too-large", "the payload is");
      if (this.#unacceptedBytes > MOST_UNACCEPTED) throw new SolarWindError("busy", "await what you fire now and then");
      this.#unacceptedBytes += event.data.length;
      if (!this.#turn.size) queueMicrotask(() => this.#endTurn());
      if (!this.#turn.has(topic)) this.#turn.set(topic, []);
      this.#turn.get(topic).push(event);
    });
    fired.catch(() => {}); // whoever forgets it need not handle this
    return fired;
  }

  /** Handle a topic's events for a purpose, from when the promise is kept. What it gives has `stop()`, and `closed`, a
   * promise of why nothing more comes. Options: exchange, version, key, since, concurrency, lease (s), retry. */
  async on(topic, purpose, options, handler) {
    const { exchange = "direct", version = 1, key = null, since = "now", concurrency = 1, lease = 30 } = options;
    const { attempts = 5, wait = 1, factor = 2, ceiling = 60 } = options.retry ?? {};
    const retry = { attempts, wait, factor, ceiling };
    const origin = `${MACHINE}/${PROCESS}`;
    const leaseNs = Math.round(lease * 1e9);
    const join = { topic, purpose, exchange, version, key, room: concurrency, lease_ns: leaseNs, retry, origin };
    const seat = { number: ++this.#last, join, since, handler, purpose, version, concurrency, lease };
    Object.assign(seat, { works: [], running: 0, handled: 0, alive: 0, leaving: false });
    const joined = new Promise((resolve, reject) => Object.assign(seat, { joined: resolve, refused: reject }));
    const closed = new Promise((resolve) => (seat.close = resolve));
    this.#seats.set(seat.number, seat);
    if (this.#up) this.#enter(seat).catch((error) => this.#up && this.#end(seat, error));
    await joined;
    return { closed, stop: () => this.#stop(seat) };
  }

  /** What an operator asks: the items of the answer. */
  call(name, options = {}) {
    return this.#ask((ref) => ["call", ref, name, options]);
  }

  /** Let handlers finish, wait until all that was fired is accepted, and say goodbye. */
  async close() {
    await Promise.all([...this.#seats.values()].map((seat) => this.#stop(seat)));
    while (this.#turn.size || this.#unaccepted.size) await sleep(5);
    this.#fail(new SolarWindError("unavailable", "it was closed"));
  }

  // The connection

  #dial() {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(this.#url, "solarwind.v1");
      socket.binaryType = "arraybuffer";
      let why = new SolarWindError("unavailable", `expected a server at ${this.#url}, got none`);
      const late = setTimeout(() => (reject(why), socket.close()), 10_000);
      socket.onopen = () => socket.send(pack([["hello", `${MACHINE}/${PROCESS}`, this.#token, SECRET]]));
      socket.onclose = socket.onerror = () => {
        clearTimeout(late);
        reject(why);
        if (socket === this.#socket) this.#lost(why);
      };
      socket.onmessage = ({ data }) => {
        this.#heard = performance.now();
        for (const [name, ...fields] of unpack(Buffer.from(data))) {
          if (name === "welcome") {
            const [, heartbeat, , batchBytes, batchEvents, payloadBytes] = fields;
            this.#welcome = { heartbeat, batchBytes, batchEvents, payloadBytes };
            this.#socket = socket;
            clearTimeout(late);
            resolve();
          } else if (name === "refused" && fields[0] === 0) why = new SolarWindError(fields[1], fields[2]);
          else if (socket === this.#socket) this.#take(name, ...fields);
        }
      };
    });
  }

  #lost(why) {
    this.#socket = null;
    this.#out = [];
    for (const seat of this.#seats.values()) seat.works = []; // they are the server's again
    for (const { reject } of this.#asked.values()) reject(new SolarWindError("unavailable", why.message));
    this.#asked.clear();
    if (!this.#up || this.#closed) return;
    this.#up = false;
    if (AGAIN.has(why.code)) this.#comeBack().catch((error) => this.#fail(error));
    else this.#fail(why);
  }

  async #comeBack() {
    for (let wait = 50; !this.#up && !this.#closed; wait = Math.min(2 * wait, 1000)) {
      await sleep(wait * (0.5 + Math.random() / 2));
      try {
        await this.#dial();
        await Promise.all([...this.#seats.values()].map((seat) => this.#enter(seat)));
        this.#up = this.#socket !== null;
      } catch (error) {
        if (!AGAIN.has(error.code)) throw error;
        const socket = this.#socket;
        this.#lost(error);
        socket?.close();
      }
    }
    for (const [ref, { batch }] of this.#unaccepted) this.#send(["submit", ref, batch]);
  }

  #fail(error) {
    this.#closed = true;
    clearInterval(this.#timer);
    for (const { reject } of [...this.#unaccepted.values(), ...this.#asked.values()]) reject(error);
    for (const seat of this.#seats.values()) this.#end(seat, error);
    this.#socket?.close(1000);
  }

  #tick(now) {
    const { heartbeat } = this.#welcome;
    const socket = this.#socket;
    if (socket && now - this.#heard > 1500 * heartbeat) {
      this.#lost(new SolarWindError("unavailable", "the server is silent"));
      socket.close();
    } else if (now - this.#pinged > 500 * heartbeat) {
      this.#pinged = now;
      this.#send(["ping"]);
    }
    for (const seat of this.#seats.values()) this.#progress(seat, now);
  }

  #send(message) {
    if (!this.#socket) return;
    const bytes = pack(message);
    if (this.#outBytes + bytes.length > MOST_TOGETHER || this.#out.length === MOST_MESSAGES) this.#flush();
    if (!this.#out.length) queueMicrotask(() => this.#flush());
    this.#out.push(bytes);
    this.#outBytes += bytes.length;
  }

  #flush() {
    const messages = this.#out.splice(0);
    const head = Buffer.from([0xdd, 0, 0, 0, 0]); // a list of so many
    head.writeUInt32BE(messages.length, 1);
    if (messages.length) this.#socket?.send(Buffer.concat([head, ...messages]));
    this.#outBytes = 0;
  }

  #ask(make) {
    return new Promise((resolve, reject) => {
      if (!this.#socket) throw new SolarWindError("unavailable", "the server is out of reach");
      this.#asked.set(++this.#last, { resolve, reject, items: [] });
      this.#send(make(this.#last));
    });
  }

  #take(name, first, ...rest) {
    if (name === "accepted") for (const ref of first) this.#answer(this.#unaccepted, ref);
    else if (name === "offer") this.#offered(first, ...rest);
    else if (name === "stale") console.error(`solarwind: lease ${rest[0]} was lost: what was done does not count`);
    else if (name === "closed" && this.#seats.has(first))
      this.#end(this.#seats.get(first), new SolarWindError("closed", rest[0]));
    else if (name === "done") {
      this.#asked.get(first)?.items.push(...rest[0]);
      if (!rest[1]) this.#answer(this.#asked, first);
    } else if (name === "refused") {
      const where = this.#unaccepted.has(first) ? this.#unaccepted : this.#asked;
      this.#answer(where, first, new SolarWindError(...rest));
    }
  }

  #answer(where, ref, error) {
    const found = where.get(ref);
    where.delete(ref);
    if (error) found?.reject(error);
    else found?.resolve(found.items);
  }

  // Events out

  /** Batches of a topic's events, each with those that are in it, which have their ids then. */
  #seal(topic, events) {
    const { batchBytes, batchEvents } = this.#welcome;
    const batches = [];
    for (let start = 0, stop = 0; start < events.length; start = stop) {
      for (let size = 0; stop < events.length && stop - start < batchEvents; stop++) {
        size += events[stop].data.length;
        if (size > batchBytes && stop > start) break;
      }
      const these = events.slice(start, stop);
      let { producer, next } = this.#numbers.get(topic) ?? { next: Infinity };
      if (next + these.length > 2 ** 30) {
        producer = randomBytes(4).readUInt32BE();
        next = randomBytes(4).readUInt32BE() >>> 3; // 29 bits
      }
      this.#numbers.set(topic, { producer, next: next + these.length });
      batches.push({ these, batch: seal(topic, these, producer, next) });
      these.forEach((event, index) => (event.id ??= makeId(event.timeNs, producer, next + index)));
    }
    return batches;
  }

  #endTurn() {
    for (const [topic, events] of this.#turn) {
      for (const { these, batch } of this.#seal(topic, events)) {
        const gone = () => these.forEach((event) => (this.#unacceptedBytes -= event.data.length));
        const resolve = () => (gone(), these.forEach((event) => event.resolve(event.id)));
        const reject = (error) => (gone(), these.forEach((event) => event.reject(error)));
        this.#unaccepted.set(++this.#last, { batch, resolve, reject });
        if (this.#up) this.#send(["submit", this.#last, batch]);
      }
    }
    this.#turn.clear();
  }

  // Events in

  async #enter(seat) {
    try {
      await this.#ask((ref) => ["join", ref, seat.number, seat.join, seat.since]);
      seat.joined();
    } catch (error) {
      if (AGAIN.has(error.code)) throw error;
      this.#end(seat, error);
    }
  }

  #end(seat, error) {
    this.#seats.delete(seat.number);
    seat.works = [];
    seat.refused(error);
    seat.close(error);
  }

  #offered(start, data, shares) {
    const open = openBatch(data);
    for (const [number, lease, picks, tried = new Map()] of shares) {
      const seat = this.#seats.get(number);
      if (!seat) continue;
      if (!seat.works.length) seat.alive = performance.now();
      const event = (position) => open(position - start, tried.get(position) ?? 0);
      const work = { lease, event, todo: positionsOf(picks).reverse(), done: [], failed: [], fired: [] };
      seat.works.push(Object.assign(work, { running: 0, handled: 0, since: 0 }));
      if (seat.leaving) this.#report(seat, work, work.todo.splice(0));
      this.#work(seat);
    }
  }

  #work(seat) {
    for (const work of seat.works)
      while (work.todo.length && seat.running < seat.concurrency) this.#handle(seat, work, work.todo.pop());
  }

  async #handle(seat, work, position) {
    work.since ||= performance.now();
    work.running++;
    seat.running++;
    const event = work.event(position);
    const cause = ["event", event.id, seat.purpose, seat.version, event.root];
    const fired = [];
    event.fire = (topic, payload, options) => void fired.push({ topic, ...makeEvent(payload, { ...options, cause }) });
    try {
      await seat.handler(event);
      work.done.push(position);
      work.fired.push(...fired);
    } catch (error) {
      const text = error?.message ?? String(error);
      if (error instanceof Later) work.failed.push([position, "later", text, Math.round(error.seconds * 1e9)]);
      else work.failed.push([position, error instanceof Reject ? "reject" : "retry", text]);
    }
    work.running--;
    work.handled++;
    seat.running--;
    seat.handled++;
    if (!work.todo.length && !work.running) this.#report(seat, work);
    this.#work(seat);
  }

  /** Every 0.1 s: give back what is too much, report what was done, and be alive. */
  #progress(seat, now) {
    const waiting = seat.works.reduce((sum, work) => sum + work.todo.length, 0);
    const keep = Math.max(seat.concurrency, seat.handled);
    let surplus = waiting > 4 * keep ? waiting - keep : 0;
    for (const work of seat.works.toReversed()) {
      const returned = work.todo.splice(0, surplus); // the latest come first
      surplus -= returned.length;
      this.#report(seat, work, returned);
    }
    seat.handled = 0;
    if (seat.works.length && now - seat.alive > 200 * seat.lease) {
      seat.alive = now;
      this.#send(["alive", seat.number]);
    }
  }

  #report(seat, work, returned = []) {
    const { lease, done, failed, fired, handled, since } = work;
    if (!seat.works.includes(work)) return; // it was lost
    if (!work.todo.length && !work.running) seat.works.splice(seat.works.indexOf(work), 1);
    if (!done.length && !failed.length && !returned.length) return;
    Object.assign(work, { done: [], failed: [], fired: [] });
    const topics = [...new Set(fired.map((event) => event.topic))];
    const holds = topics.flatMap((topic) => this.#seal(topic, fired.filter((event) => event.topic === topic)));
    for (const { batch } of holds) this.#send(["hold", batch]);
    const busyNs = handled ? Math.round((performance.now() - since) * 1e6) : 0;
    const became = [edgesOf(done), failed, edgesOf(returned)];
    this.#send(["report", seat.number, lease, ...became, handled, busyNs, holds.length]);
  }

  async #stop(seat) {
    if (seat.leaving || !this.#seats.has(seat.number)) return;
    seat.leaving = true;
    this.#send(["leaving", seat.number]);
    for (const work of [...seat.works]) this.#report(seat, work, work.todo.splice(0));
    while (seat.running) await sleep(5);
    await this.#ask((ref) => ["leave", ref, seat.number]).catch(() => {}); // out of reach it is gone, too
    this.#end(seat, new SolarWindError("unavailable", "it was stopped"));
  }
}

// --- the program ---------------------------------------------------------------------------------------------------

async function main([url, command, topic, what, more]) {
  const usage = "client.mjs URL fire TOPIC JSON|- [KEY], or client.mjs URL listen TOPIC PURPOSE [EXCHANGE]";
  if (!globalThis.WebSocket) throw new SolarWindError("usage", NO_WEBSOCKET);
  if (!["fire", "listen"].includes(command) || !topic || !what) throw new SolarWindError("usage", usage);
  const wind = await new SolarWind(url).connect();
  if (command === "listen") {
    const instance = await wind.on(topic, what, { exchange: more }, ({ id, key, time, attempt, payload }) =>
      console.log(JSON.stringify({ id, key, time, attempt, payload })));
    for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => instance.stop());
    console.error(`listening to ${topic} for ${what}`);
    const end = await instance.closed;
    if (end.code !== "unavailable") throw end;
  } else if (what === "-") {
    let count = 0;
    for await (const line of createInterface({ input: process.stdin })) {
      const fired = wind.fire(topic, JSON.parse(line));
      if (++count % 1000 === 0) await fired;
    }
    console.error(`${count} events fired`);
  } else console.log(await wind.fire(topic, JSON.parse(what), { key: more }));
  await wind.close();
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  main(process.argv.slice(2)).catch((error) => {
    console.error(`${error.code ?? error.name}: ${error.message}`);
    process.exit(1);
  });
}
