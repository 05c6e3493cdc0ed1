// Says while somebody types what a replay would make of the body. The form works without it: the server checks again.
"use strict";

const form = document.getElementById("mend");
const body = document.getElementById("body");
const verdict = document.getElementById("verdict");
let timer = null;
let asked = 0;

async function check() {
  const question = ++asked;
  const data = new FormData();
  data.append("csrfmiddlewaretoken", form.querySelector("[name=csrfmiddlewaretoken]").value);
  data.append("body", body.value);
  try {
    const answer = await fetch(form.dataset.check, { method: "POST", body: data, credentials: "same-origin", redirect: "error" });
    if (!answer.ok) throw new Error(answer.status);
    show(question, await answer.json());
  } catch {
    if (question === asked) verdict.textContent = "Not checked: the server does not answer.";
  }
}

function show(question, found) {
  if (question !== asked) return; // an older answer than the last question
  const list = document.createElement("ul");
  list.className = found.good ? "good" : "faults";
  const lines = found.good ? [`Good: ${found.outcome}.`] : found.faults.map((fault) => `${fault.path}: ${fault.problem}`);
  for (const line of lines.length ? lines : [found.outcome]) {
    const item = document.createElement("li");
    item.textContent = line;
    list.append(item);
  }
  verdict.replaceChildren(list);
}

body.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(check, 400);
});
