// Before the page is drawn, or it would flash in the other colours.
"use strict";
{
  const kept = localStorage.getItem("theme");
  document.documentElement.dataset.theme = kept === "light" ? "light" : "dark";
}
