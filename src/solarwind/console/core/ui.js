// What every module that draws uses: elements by `html`, and signals.
import { h, render, Component } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export { useEffect, useMemo, useRef } from "../vendor/hooks.js";
export { batch, effect, signal, useComputed, useSignal } from "../vendor/signals.js";
export { Component, render };

// Characters that would not be seen, or turn around what stands beside them, are shown by their numbers.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;
export const plain = (text) =>
  typeof text === "string" ? text.replace(UNSEEN, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`) : text;

export const html = htm.bind((type, props, ...children) => h(type, props, ...children.map(plain)));
