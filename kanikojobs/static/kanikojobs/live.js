// Keeps the overview up to date while its box is ticked and the page is looked at. The page works without it.
"use strict";

const live = document.getElementById("live");
const box = document.getElementById("live-switch");
const note = document.getElementById("live-note");

async function refresh() {
  if (!box.checked || document.hidden) return;
  // What a person has opened stays open, and what they are on keeps the focus.
  const open = [...live.querySelectorAll("details")].map((details) => details.open);
  if (open.includes(true) || live.contains(document.activeElement)) return;
  try {
    const answer = await fetch(live.dataset.source, { credentials: "same-origin", redirect: "error" });
    if (!answer.ok) throw new Error(answer.status);
    live.replaceChildren(new DOMParser().parseFromString(await answer.text(), "text/html").body);
    live.replaceChildren(...live.firstElementChild.childNodes);
    note.textContent = "";
  } catch {
    note.textContent = "Not up to date: the server does not answer.";
  }
}

setInterval(refresh, 1000 * Number(live.dataset.seconds));
