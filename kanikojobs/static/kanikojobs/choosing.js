// Django's boxes of what is available and what is chosen put a name on a picture that is no image to a screen reader.
window.addEventListener("load", () => {
  for (const picture of document.querySelectorAll(".selector .search-label-icon")) picture.setAttribute("role", "img");
});
