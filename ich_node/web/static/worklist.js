// Keeps the worklist up to date: the server says that something has changed, and the table is asked for again.
"use strict";
{
  const table = document.getElementById("table");
  const live = document.getElementById("live");
  const tools = document.getElementById("tools");
  let asking = false;
  let again = false;
  let later;

  const say = (state) => {
    live.textContent = state === "live" ? "live" : "not connected; trying again";
    live.dataset.state = state;
  };

  async function renew() {
    if (asking) { again = true; return; }
    asking = true;
    try {
      const answer = await ich.ask("/worklist" + location.search, { byItself: true });
      if (!answer.ok) throw new Error(answer.status);
      show(await answer.text());
      say("live");
    } catch {
      say("connecting");
      clearTimeout(later);
      later = setTimeout(renew, AGAIN_MS);
    }
    asking = false;
    if (again) { again = false; renew(); }
  }

  /** Exchange the table, and leave the focus where it is. */
  function show(html) {
    const focused = document.activeElement?.closest?.("tr[data-study]")?.dataset.study;
    const before = new Map([...table.querySelectorAll("tr[data-study]")].map((row) => [row.dataset.study, row.className + row.textContent]));
    table.innerHTML = html; // made by our own template, which escapes every text
    ich.sayTimes(table);
    for (const row of table.querySelectorAll("tr[data-study]")) {
      if (!before.has(row.dataset.study)) row.classList.add("new");
    }
    if (focused) table.querySelector(`tr[data-study="${CSS.escape(focused)}"] a`)?.focus({ preventScroll: true });
  }

  function count(waiting) {
    for (const one of document.querySelectorAll("#waiting dd")) {
      const value = waiting[one.dataset.count];
      one.textContent = ich.sayNumber(value);
      if (["failed", "quarantined", "dead", "unanswered"].includes(one.dataset.count)) {
        one.parentElement.classList.toggle("bad", value > 0);
      }
    }
  }

  /** The arrow keys go from study to study; Enter opens one. */
  function go(step) {
    const links = [...table.querySelectorAll("td.finding a")];
    if (!links.length) return;
    const at = links.indexOf(document.activeElement);
    links[Math.min(Math.max(at < 0 ? (step > 0 ? 0 : links.length - 1) : at + step, 0), links.length - 1)].focus();
  }

  addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowDown" || event.key === "j") { go(1); event.preventDefault(); }
    if (event.key === "ArrowUp" || event.key === "k") { go(-1); event.preventDefault(); }
    if (event.key === "/") { tools.elements.search.focus(); event.preventDefault(); }
  });
  table.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-study]");
    if (row && !event.target.closest("a, button") && !getSelection().toString()) row.querySelector("a").click();
  });
  for (const one of tools.querySelectorAll("select")) one.addEventListener("change", () => tools.requestSubmit());
  ich.listen((state) => { count(state.waiting); renew(); }, say);
}
