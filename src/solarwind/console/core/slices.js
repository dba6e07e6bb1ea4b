// Long work in slices: between two of them the page is drawn, and answers whoever uses it.
const SLICE_MS = 12;

const pause = () => (globalThis.scheduler?.yield ? scheduler.yield() : new Promise((done) => setTimeout(done)));

export class Slices {
  #began = performance.now();

  // Wait until others had their turn, if this slice was long.
  async next() {
    if (performance.now() - this.#began < SLICE_MS) return;
    await pause();
    this.#began = performance.now();
  }
}
