// Events a second over a time, drawn by uPlot; the numbers at the pointer, or the last ones, stand below it.
import { html, useEffect, useRef, useSignal } from "../core/ui.js";
import { theme } from "../core/theme.js";
import { rate } from "../core/format.js";
import uPlot from "../vendor/uplot.js";

const SERIES = [["fired", "--plot-1"], ["settled", "--plot-2"], ["retried", "--plot-3"], ["dead", "--plot-4"]];
const HEIGHT = 190;
const DASH = [5, 4];
const TOGETHER_PX = 70; // marks that are nearer than that are one

const clock = (seconds, withSeconds) => new Date(seconds * 1000).toLocaleTimeString("sv-SE", { timeStyle: withSeconds ? "medium" : "short" });

// `counts` are lists of `fired`, `settled`, `retried` and `dead`, in slots of `step` seconds up to the time `end`.
// `marks` are {at, text}, in order: what happened then.
export function RatePlot({ counts, step, end, marks = [] }) {
  const place = useRef(null);
  const plot = useRef(null);
  const pointed = useSignal(null);
  const last = Math.floor(Date.parse(end) / 1000 / step) * step;
  const size = counts.fired.length - 1; // the last slot is not over yet
  const times = Array.from({ length: size }, (_, at) => last - (size - at) * step);
  const data = [times, ...SERIES.map(([name]) => counts[name].slice(0, -1).map((each) => each / step))];
  const marked = useRef(marks);
  marked.current = marks;
  useEffect(() => {
    const element = place.current;
    const made = new uPlot(options(element, marked, step, (at) => (pointed.value = at)), data, element);
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    observer.observe(element);
    const system = matchMedia("(prefers-color-scheme: dark)");
    const redraw = () => made.redraw(false);
    system.addEventListener("change", redraw);
    return () => {
      observer.disconnect();
      system.removeEventListener("change", redraw);
      made.destroy();
    };
  }, [step, theme.value]);
  useEffect(() => plot.current.setData(data), [end]);
  const at = Math.min(pointed.value ?? size - 1, size - 1);
  const values = SERIES.map(([name], index) => [name, rate(data[index + 1][at])]);
  return html`<div class="plot" ref=${place} role="img" aria-label=${`Events a second: at last ${values.map((each) => each.join(" ")).join(", ")}`}></div>
    <ul class="said">${values.map(([name, value], index) => html`<li><svg width="22" height="8" aria-hidden="true"><line class=${name} x1="0" x2="22" y1="4" y2="4" stroke-width="2" stroke-dasharray=${index > 1 ? DASH.join(" ") : undefined} /></svg>${name} <strong>${value}</strong></li>`)}
      <li class="quiet">${pointed.value === null ? "at last" : `at ${clock(times[at], step < 60)}`}</li></ul>`;
}

function options(element, marks, step, point) {
  const colour = (name) => getComputedStyle(element).getPropertyValue(name).trim();
  const axis = { stroke: () => colour("--quiet"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false } };
  return {
    width: element.clientWidth,
    height: HEIGHT,
    cursor: { drag: { x: false, y: false } },
    legend: { show: false },
    scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
    axes: [
      { ...axis, space: 80, values: (_, times) => times.map((each) => clock(each, step === 1)) },
      { ...axis, size: 46, values: (_, values) => values.map((each) => each.toLocaleString("en-US")) },
    ],
    series: [
      {},
      ...SERIES.map(([label, name], at) => ({ label, stroke: () => colour(name), width: 1.5, dash: at > 1 ? DASH : undefined, points: { show: false } })),
    ],
    hooks: {
      draw: [(made) => drawMarks(made, marks.current, colour)],
      setCursor: [({ cursor }) => point(cursor.idx ?? null)],
    },
  };
}

// A line for each mark, and a text for those that are near to each other: the first of them, and how many more.
function drawMarks(made, marks, colour) {
  const { ctx, bbox } = made;
  const scale = devicePixelRatio;
  const shown = marks.filter(({ at }) => at >= made.scales.x.min && at <= made.scales.x.max).map(({ at, text }) => ({ x: Math.round(made.valToPos(at, "x", true)), text }));
  const groups = [];
  for (const mark of shown) {
    const near = groups.at(-1);
    if (near && mark.x - near.x < TOGETHER_PX * scale) near.more += 1;
    else groups.push({ ...mark, more: 0 });
  }
  ctx.save();
  ctx.strokeStyle = colour("--accent");
  ctx.fillStyle = colour("--text");
  ctx.font = `${11 * scale}px system-ui, sans-serif`;
  ctx.setLineDash([2, 3]);
  for (const { x } of shown) {
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  for (const { x, text, more } of groups) {
    const right = x > bbox.left + bbox.width / 2;
    ctx.textAlign = right ? "right" : "left";
    ctx.fillText(`${text}${more ? ` and ${more} more joined` : " joined"}`, x + (right ? -5 : 5), bbox.top + 11 * scale);
  }
  ctx.restore();
}
