// The page of a study: its viewer, what is known of it as it changes, acknowledgement and feedback.
"use strict";
{
  const root = document.querySelector("[data-study]");
  const study = root.dataset.study;
  const facts = document.getElementById("facts");
  const place = document.getElementById("viewer");
  const viewer = place ? new Viewer(study, place) : null;
  window.viewer = viewer;
  const SETTLE_MS = 1500; // what is just shown is looked at again once its images are there
  let last;
  let isFirst = true;

  function somebodyWrites() {
    const more = document.getElementById("more");
    return (more && !more.hidden) || facts.querySelector("details[open]");
  }

  const markOf = (one) => one?.id || one?.dataset?.agrees || one?.getAttribute?.("href") || "";

  /** Ask for the facts again; while somebody writes only after what they did themselves. */
  async function renewFacts(byThem = false) {
    if (!byThem && somebodyWrites()) return;
    let text;
    try {
      const answer = await ich.ask(`/studies/${study}/facts`, { byItself: true });
      if (!answer.ok) return;
      text = await answer.text();
    } catch { return; } // the node is away; the next change asks again
    if (!byThem && somebodyWrites()) return; // they began while it came
    const opened = [...facts.querySelectorAll("details")].map((one) => one.open);
    const focused = facts.contains(document.activeElement) ? markOf(document.activeElement) : "";
    facts.innerHTML = text; // made by our own template, which escapes every text
    facts.querySelectorAll("details").forEach((one, index) => { one.open = opened[index] || false; });
    if (focused) [...facts.querySelectorAll("a, button, summary")].find((one) => markOf(one) === focused)?.focus({ preventScroll: true });
    ich.sayTimes(facts);
  }

  /** Post something of ours; what went wrong is said. */
  async function post(what, value) {
    try {
      const answer = await ich.post(`/studies/${study}/${what}`, value);
      if (answer.ok) return true;
      const said = await answer.json().catch(() => ({}));
      say(said.detail || "This could not be noted. Try again.");
    } catch { say("The node does not answer: nothing may have been noted. Try again."); }
    return false;
  }

  function say(text) {
    const said = document.getElementById("feedback-said");
    if (said) said.textContent = text;
  }

  async function acknowledge(button) {
    button.disabled = true;
    if (!(await post("acknowledge", { alert: button.dataset.alert }))) { button.disabled = false; return; }
    button.hidden = true; // also while somebody writes, and nothing is renewed
    renewFacts();
  }

  async function feedback(agrees, form) {
    const chosen = form ? new FormData(form) : new FormData();
    const slice = viewer?.slices[viewer.at];
    const value = {
      agrees,
      revision: Number(document.getElementById("feedback").dataset.revision), // that the reader has before their eyes
      none: chosen.has("none"),
      classes: chosen.getAll("class"),
      slices: chosen.has("slice") && slice ? [[slice.uid, slice.frame]] : [],
      note: chosen.get("note") || "",
    };
    if (!(await post("feedback", value))) return;
    const more = document.getElementById("more");
    if (more) more.hidden = true;
    await renewFacts(true);
    say(agrees ? "Noted: you agree." : "Noted: you disagree.");
  }

  function disagree() {
    const more = document.getElementById("more");
    if (!more) return;
    more.hidden = !more.hidden;
    facts.querySelector('[data-agrees="no"]').setAttribute("aria-expanded", String(!more.hidden));
    if (!more.hidden) more.querySelector("input").focus();
  }

  facts.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.id === "acknowledge") acknowledge(button);
    else if (button?.dataset.agrees === "yes") feedback(true);
    else if (button?.dataset.agrees === "no") disagree();
  });
  facts.addEventListener("submit", (event) => {
    if (event.target.id !== "feedback") return;
    event.preventDefault();
    feedback(false, event.target);
  });
  addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.repeat) return; // a key that is held says it once
    if (!facts.querySelector("#feedback")) return;
    if (event.key === "a" || event.key === "A") feedback(true);
    if (event.key === "d" || event.key === "D") { event.preventDefault(); disagree(); }
  });
  ich.listen((state) => {
    const mine = state.studies[study];
    if (mine === last && !isFirst) return;
    const renew = () => { renewFacts(); viewer?.load(); };
    if (isFirst) setTimeout(renew, SETTLE_MS);
    else renew();
    [last, isFirst] = [mine, false];
  }, () => {});
  viewer?.show(JSON.parse(document.getElementById("slices").textContent));
}
