// Dark or light: as the system has it, or as chosen here.
import { effect, signal } from "./ui.js";

const KEY = "solarwind theme";
const ORDER = ["system", "light", "dark"];

const kept = localStorage.getItem(KEY);
export const theme = signal(ORDER.includes(kept) ? kept : "system");

effect(() => {
  document.documentElement.dataset.theme = theme.value;
  localStorage.setItem(KEY, theme.value);
});

export const nextTheme = () => (theme.value = ORDER[(ORDER.indexOf(theme.value) + 1) % ORDER.length]);
