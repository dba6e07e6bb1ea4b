// What the theme leaves out for those who do not use a mouse or a screen: regions that scroll can be reached by the
// keyboard, and landmarks and headings of the sidebar say what they are.
document.addEventListener("DOMContentLoaded", () => {
  for (const each of document.querySelectorAll(".highlight pre, .table-wrapper")) each.tabIndex = 0;
  for (const each of document.querySelectorAll("p.caption[role=heading]")) each.setAttribute("aria-level", "2");
  document.querySelector("aside.sidebar-drawer")?.setAttribute("aria-label", "Pages");
  document.querySelector("aside.toc-drawer")?.setAttribute("aria-label", "On this page");
});
