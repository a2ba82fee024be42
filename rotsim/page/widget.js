// The page in a frame of a notebook. `view` is the hash of its link, which goes both ways.
function render({ model, el }) {
  const frame = document.createElement("iframe");
  const file = URL.createObjectURL(new Blob([model.get("html")], { type: "text/html" }));
  frame.title = "rotsim: rotational equilibrium, live";
  frame.src = file + model.get("view");
  frame.style.cssText = `width: 100%; height: ${model.get("height")}px; border: 1px solid #8888; border-radius: 6px`;
  frame.allow = "clipboard-write";
  el.append(frame);
  let said = model.get("view");
  const hear = ({ source, data }) => {
    if (source !== frame.contentWindow || typeof data?.rotsim !== "string") return;
    said = data.rotsim;
    model.set("view", said);
    model.save_changes();
  };
  window.addEventListener("message", hear);
  model.on("change:view", () => {
    if (model.get("view") === said) return;
    said = model.get("view");
    frame.contentWindow.postMessage({ rotsim: said }, "*");
  });
  model.on("change:height", () => (frame.style.height = `${model.get("height")}px`));
  return () => {
    window.removeEventListener("message", hear);
    URL.revokeObjectURL(file);
  };
}

export default { render };
