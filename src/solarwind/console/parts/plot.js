// Events a second over a time, as lines; the numbers at the pointer, or the last ones, stand below them.
import { html, useEffect, useRef, useSignal } from "../core/ui.js";
import { rate } from "../core/format.js";
import { fitted, widthOf } from "./fitted.js";

const SERIES = ["fired", "settled", "retried", "dead"];
const DASHED = new Set(["retried", "dead"]);
const HEIGHT = 170;
const LEFT = 48; // for the numbers
const BELOW = 22; // for the times
const LABEL_PX = 90; // between two times
const TOGETHER_PX = 70; // marks that are nearer than that have one text
const MARK = { font: "400 11px", apart: 5 }; // its text, and how far it is from its line
const STEPS_S = [15, 30, 60, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600];

const clock = (seconds, whole) => new Date(seconds * 1000).toLocaleTimeString("sv-SE", { timeStyle: whole ? "medium" : "short" });

// `counts` are lists of `fired`, `settled`, `retried` and `dead`, in slots of `step` seconds up to the time `end`.
// `marks` are {at, text}, in order: what happened then.
export function RatePlot({ counts, step, end, marks = [] }) {
  const place = useRef(null);
  const width = useSignal(0);
  const pointed = useSignal(null);
  useEffect(() => {
    const observer = new ResizeObserver(([{ contentRect }]) => (width.value = Math.floor(contentRect.width)));
    observer.observe(place.current);
    return () => observer.disconnect();
  }, []);
  const size = counts.fired.length - 1; // the last slot is not over yet
  const last = Math.floor(Date.parse(end) / 1000 / step) * step - step;
  const first = last - (size - 1) * step;
  const values = SERIES.map((name) => counts[name].slice(0, size).map((each) => each / step));
  const [top, lines] = scaleOf(Math.max(...values.flat()));
  const x = (time) => LEFT + ((time - first) / (last - first)) * (width.value - LEFT - 8);
  const y = (value) => 8 + (1 - value / top) * (HEIGHT - BELOW - 8);
  const at = Math.min(pointed.value ?? size - 1, size - 1);
  const point = ({ offsetX }) => {
    const found = Math.round(((offsetX - LEFT) / (width.value - LEFT - 8)) * (size - 1));
    pointed.value = found >= 0 && found < size ? found : null;
  };
  const said = SERIES.map((name, index) => [name, rate(values[index][at])]);
  return html`<div class="plot" ref=${place}>
      <svg width=${width.value} height=${HEIGHT} role="img" aria-label=${`Events a second, at last: ${said.map((each) => each.join(" ")).join(", ")}`}
        onPointerMove=${point} onPointerLeave=${() => (pointed.value = null)}>
        ${lines.map((value) => html`<g><line class="grid" x1=${LEFT} x2=${width.value} y1=${y(value)} y2=${y(value)} /><text x=${LEFT - 8} y=${y(value) + 4} text-anchor="end">${value.toLocaleString("en-US")}</text></g>`)}
        ${timesOf(first, last, width.value).map((time) => html`<text x=${x(time)} y=${HEIGHT - 4} text-anchor="middle">${clock(time, step === 1)}</text>`)}
        ${SERIES.map((name, index) => html`<path class=${name} stroke-dasharray=${DASHED.has(name) ? "5 4" : undefined} d=${pathOf(values[index], (slot) => x(first + slot * step), y)} />`)}
        <${Marks} marks=${marks.filter((each) => each.at >= first && each.at <= last + step)} x=${x} width=${width.value} />
        ${pointed.value !== null && html`<line class="pointed" x1=${x(first + at * step)} x2=${x(first + at * step)} y1="8" y2=${HEIGHT - BELOW} />`}
      </svg>
    </div>
    <ul class="said">${said.map(([name, value]) => html`<li><svg class="plot" width="22" height="8" aria-hidden="true"><path class=${name} d="M0 4H22" stroke-dasharray=${DASHED.has(name) ? "5 4" : undefined} /></svg>${name} <strong>${value}</strong></li>`)}
      <li class="quiet">${pointed.value === null ? "at last" : `at ${clock(first + at * step, step < 60)}`}</li></ul>`;
}

// Return the top of the scale, and its lines: 1, 2 or 5 times a power of ten apart.
function scaleOf(highest) {
  const least = Math.max(1, highest * 1.05) / 4;
  const power = 10 ** Math.floor(Math.log10(least));
  const apart = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= least);
  const top = Math.ceil(Math.max(1, highest * 1.05) / apart) * apart;
  return [top, Array.from({ length: Math.round(top / apart) + 1 }, (_, each) => Number((each * apart).toFixed(2)))];
}

function timesOf(first, last, width) {
  const most = Math.max(1, (width - LEFT) / LABEL_PX);
  const apart = STEPS_S.find((each) => (last - first) / each <= most) ?? 43_200;
  const zone = new Date(first * 1000).getTimezoneOffset() * 60;
  const begin = Math.ceil((first - zone + apart / 4) / apart) * apart + zone;
  return Array.from({ length: Math.max(0, Math.ceil((last - apart / 4 - begin) / apart)) }, (_, each) => begin + each * apart);
}

function pathOf(values, x, y) {
  return values.map((value, slot) => `${slot ? "L" : "M"}${x(slot).toFixed(1)} ${y(value).toFixed(1)}`).join("");
}

// A line for each mark, and a text for those that are near to each other: the first of them, and how many more.
function Marks({ marks, x, width }) {
  const groups = [];
  for (const { at, text } of marks) {
    const near = groups.at(-1);
    if (near && x(at) - near.x < TOGETHER_PX) near.more += 1;
    else groups.push({ x: x(at), text, more: 0 });
  }
  return html`${marks.map(({ at }) => html`<line class="mark" x1=${x(at)} x2=${x(at)} y1="8" y2=${HEIGHT - BELOW} />`)}
    ${groups.map((each) => html`<${MarkText} of=${each} width=${width} />`)}`;
}

// It stands at the side of its line where there is more room, and no further than that.
function MarkText({ of: { x, text, more }, width }) {
  const before = x > (width + LEFT) / 2;
  const rest = more ? ` and ${more} more joined` : " joined";
  const room = (before ? x - LEFT : width - x) - 2 * MARK.apart;
  const shown = fitted(text, MARK.font, room - widthOf(rest, MARK.font));
  return html`<text class="mark" x=${x + (before ? -MARK.apart : MARK.apart)} y="18" text-anchor=${before ? "end" : "start"}>${shown}${rest}${shown !== text && html`<title>${text}${rest}</title>`}</text>`;
}
