"use strict";

// Tiles of a sprite, all mixtures below a row of sources; see Mixtures in pictures.py for their order.
function sprite(explorer, id) {
  const image = document.getElementById(id);
  const gap = Number(explorer.dataset.gap);
  const inset = gap + Number(explorer.dataset.lead);
  return (canvas, column, row) => {
    const { width, height } = canvas;
    const x = width + inset + column * (width + gap);
    const y = row < 0 ? 0 : height + inset + row * (height + gap);
    canvas.getContext("2d").drawImage(image, x, y, width, height, 0, 0, width, height);
  };
}

function start(explorer) {
  const count = Number(explorer.dataset.count);
  const fieldsets = [...explorer.querySelectorAll("fieldset")];
  const status = explorer.querySelector("[role=status]");
  const draw = (canvas, column, row) => sprite(explorer, canvas.dataset.sprite)(canvas, column, row);

  function show() {
    const inputs = fieldsets.map((fieldset) => fieldset.querySelector("input:checked"));
    const chosen = inputs.map((input) => Number(input.value));
    const number = chosen.reduce((sum, choice, place) => sum + choice * count ** place, 0);
    const words = inputs.map((input, place) => {
      const name = input.closest("label").textContent.trim();
      return `${fieldsets[place].dataset.block} from ${name}`;
    });
    for (const canvas of explorer.querySelectorAll("[data-chosen]")) {
      draw(canvas, chosen[Number(canvas.dataset.chosen)], -1);
    }
    for (const canvas of explorer.querySelectorAll("[data-mixture]")) {
      draw(canvas, number % count, Math.floor(number / count));
    }
    status.textContent = `Shown: ${words.join("; ")}.`;
  }

  for (const canvas of explorer.querySelectorAll("[data-source]")) draw(canvas, Number(canvas.dataset.source), -1);
  explorer.addEventListener("change", show);
  explorer.hidden = false;
  show();
}

// A frame takes the focus only where there is something to scroll.
function frames() {
  for (const frame of document.querySelectorAll(".scroll")) {
    if (frame.scrollWidth > frame.clientWidth) frame.tabIndex = 0;
    else frame.removeAttribute("tabindex");
  }
}

const explorers = [...document.querySelectorAll("[data-explorer]")];
Promise.all([...document.images].map((image) => image.decode())).then(() => {
  explorers.forEach(start);
  document.documentElement.classList.add("js");
  frames();
  addEventListener("resize", frames);
});
