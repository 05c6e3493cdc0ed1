// Copies the text of the element that a button names. Without a clipboard the text is selected, to be copied by hand.
"use strict";

for (const button of document.querySelectorAll("button[data-copies]")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copies);
    const note = button.parentElement.querySelector("[role=status]");
    try {
      await navigator.clipboard.writeText(source.textContent);
      note.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(source);
      note.textContent = "Selected: copy it by hand.";
    }
  });
}
