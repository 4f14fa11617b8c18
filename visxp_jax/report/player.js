"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);

  // One player for the page: a sound is decoded when it is asked for, not before.
  let player = null;
  let playing = null;
  let queue = [];
  let owner = null; // the "play all" button that filled the queue
  const stop = () => {
    if (player) player.pause();
    if (playing) playing.classList.remove("playing");
    playing = null;
  };
  const next = () => {
    stop();
    if (queue.length) play(queue.shift());
  };
  const failed = (error) => {
    if (error.name === "AbortError") return; // replaced by the next sound
    queue = [];
    stop();
    byId("status").textContent = "This sound cannot be played: " + error.message;
  };
  const play = (button) => {
    if (!player) {
      player = document.createElement("audio");
      player.addEventListener("ended", next);
      player.addEventListener("loadedmetadata", () => {
        if (playing) playing.style.setProperty("--sound-s", player.duration + "s");
      });
      document.body.append(player);
    }
    stop();
    playing = button;
    button.classList.add("playing");
    button.scrollIntoView({ block: "nearest", inline: "nearest" });
    player.src = "data:audio/wav;base64," + byId("s" + button.dataset.sound).textContent;
    player.play().catch(failed);
  };
  document.addEventListener("click", (event) => {
    const one = event.target.closest("[data-sound]");
    const many = event.target.closest(".all");
    if (!one && !many) return;
    const again = one ? one === playing : playing && owner === many;
    queue = [];
    owner = many;
    if (again) return stop();
    if (one) return play(one);
    queue = all("[data-sound]", many.closest(".card"));
    next();
  });
})();
