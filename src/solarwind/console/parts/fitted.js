// Text of a drawing, which has no line to break: where it is wider than its place, it ends in an ellipsis.
const pen = document.createElement("canvas").getContext("2d");
const family = getComputedStyle(document.documentElement).fontFamily;

export function widthOf(text, font) {
  pen.font = `${font} ${family}`;
  return pen.measureText(text).width;
}

// `font` is a weight and a size, as CSS writes them before the family; `width` is in pixels.
export function fitted(text, font, width) {
  if (widthOf(text, font) <= width) return text;
  const letters = [...text];
  let [least, most] = [0, letters.length];
  while (least < most) {
    const middle = Math.ceil((least + most) / 2);
    if (widthOf(`${letters.slice(0, middle).join("")}…`, font) <= width) least = middle;
    else most = middle - 1;
  }
  return `${letters.slice(0, least).join("").trimEnd()}…`;
}
