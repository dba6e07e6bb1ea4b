// What every module that draws uses: elements by `html`, and signals.
import { h, render, Component } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export { useEffect, useMemo, useRef, useState } from "../vendor/hooks.js";
export { batch, computed, effect, signal, useComputed, useSignal } from "../vendor/signals.js";
export { Component, h, render };

export const html = htm.bind(h);
