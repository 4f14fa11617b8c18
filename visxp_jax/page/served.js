"use strict";
// Where answers come from: the server that the page is from.
const source = (() => {
  const told = async (response) => {
    const value = await response.json().catch(() => ({ error: `the server said ${response.status}` }));
    if (!response.ok) throw new Error(value.error || `the server said ${response.status}`);
    return value;
  };
  const reached = async (...request) => {
    let response;
    try {
      response = await fetch(...request);
    } catch {
      throw new Error("The server does not answer: it may have been stopped. Start it again, then reload this page.");
    }
    return told(response);
  };
  // Numbers of clips are those of one state of the index, which each therefore names.
  const answer = async (state) => {
    const value = await reached("/api/search?" + state);
    for (const clip of [value.query, ...value.hits]) if (clip) clip.index = value.index;
    return value;
  };
  const at = (kind, clip) => `/${kind}/${clip.row}?index=${encodeURIComponent(clip.index)}`;
  return {
    about: () => reached("/api/about"),
    answer,
    thumbnail: (clip) => at("thumbnail", clip),
    hierarchy: (clip) => `/hierarchy?row=${clip.row}&index=${encodeURIComponent(clip.index)}#node=sight%20and%20sound.0`,
    upload: (file, at_s) => reached(
      `/api/upload?name=${encodeURIComponent(file.name)}&at=${at_s}`,
      // Without the origin the server cannot know that it is this page that asks.
      { method: "POST", body: file, referrerPolicy: "same-origin" }),
    // Fills the stage with something that plays; `failed` is told why it does not.
    play: (clip, stage, failed) => {
      const video = document.createElement("video");
      Object.assign(video, { controls: true, autoplay: true, playsInline: true, poster: at("thumbnail", clip) });
      // It may be a whole shot that plays: from the second that was found on.
      video.src = `${at("clip", clip)}#t=${Math.max(0, clip.start_s - clip.plays_from_s)}`;
      video.ariaLabel = `${clip.name} at ${clip.at}`;
      video.addEventListener("error", () => {
        if (!video.isConnected) return;
        const image = document.createElement("img");
        Object.assign(image, { src: video.poster, alt: video.ariaLabel });
        stage.replaceChildren(image);
        reached(video.src).then(
          () => failed("Your browser cannot play this clip."),
          (error) => failed(error.message));
      });
      stage.replaceChildren(video);
      return video;
    },
  };
})();
