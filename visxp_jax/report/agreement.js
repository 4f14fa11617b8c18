"use strict";
(() => {
  const list = document.getElementById("videos");
  const sort = document.getElementById("sort");
  const find = document.getElementById("find");
  const count = document.getElementById("count");
  const videos = [...list.querySelectorAll(".video")];

  // A letter for each part: 0 to z, or - for nothing to hear.
  const draw = (canvas) => {
    const course = canvas.dataset.course;
    canvas.width = course.length;
    canvas.height = 1;
    const context = canvas.getContext("2d");
    const colour = getComputedStyle(document.documentElement);
    const [good, bad] = ["--fill", "--edge"].map((name) => colour.getPropertyValue(name));
    [...course].forEach((letter, x) => {
      if (letter === "-") return;
      const value = parseInt(letter, 36) / 35;
      context.globalAlpha = Math.max(0.08, Math.abs(value - 0.5) * 2);
      context.fillStyle = value >= 0.5 ? good : bad;
      context.fillRect(x, 0, 1, 1);
    });
    canvas.style.imageRendering = "pixelated";
  };

  const arrange = () => {
    const down = sort.value.startsWith("-");
    const key = sort.value.replace("-", "");
    const wanted = find.value.toLowerCase();
    const value = ({ dataset }) => {
      if (key === "name") return dataset.name;
      if (key === "quiet") return +dataset.mute + +dataset.silent;
      return dataset[key] === "" ? null : +dataset[key];
    };
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null); // those without last
      const order = key === "name" ? x.localeCompare(y) : x - y;
      return down ? -order : order;
    };
    let shown = 0;
    for (const video of [...videos].sort(compare)) {
      video.hidden = !video.dataset.name.toLowerCase().includes(wanted);
      shown += !video.hidden;
      list.append(video);
    }
    count.textContent = `${shown} of ${videos.length}`;
    document.getElementById("save").disabled = !shown;
  };

  const number = (text) => (text === "" ? null : Number(text));
  document.getElementById("save").addEventListener("click", () => lists.save(
    "agreement.csv",
    [...list.querySelectorAll(".video:not([hidden])")].map(({ dataset }) => ({
      file: dataset.name,
      agreement: number(dataset.agreement),
      length: lists.timecode(dataset.seconds),
      without_sound: number(dataset.mute),
      silent: number(dataset.silent),
    }))));
  document.getElementById("save-seconds").addEventListener("click", () => lists.save(
    "agreement_seconds.csv",
    [...document.querySelectorAll(".seconds figure")].map(({ dataset }) => ({
      file: dataset.file,
      start: lists.timecode(dataset.start),
      agreement: number(dataset.agreement),
    }))));
  videos.forEach((video) => draw(video.querySelector("canvas")));
  sort.addEventListener("change", arrange);
  find.addEventListener("input", arrange);
  arrange();
})();
