// Long work in slices: between two of them the page is drawn, and answers whoever uses it.
import { rest } from "./clock.js";

const SLICE_MS = 12;

const pause = () => globalThis.scheduler?.yield?.() ?? rest(0);

export class Slices {
  #began = performance.now();

  // Wait until others had their turn, if this slice was long.
  async next() {
    if (performance.now() - this.#began < SLICE_MS) return;
    await pause();
    this.#began = performance.now();
  }
}
