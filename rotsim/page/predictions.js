// Courses are computed beside the page, in a worker made of the page's own numeric core; without workers, in the page.
"use strict";

function answerQuestion({ name, spec, variant, dim, scale, norm, lr, decay, window, rows }) {
  const optimizer = OPTIMIZERS.find((one) => one.name === name);
  try {
    return predictCourse(optimizer, spec, variant, dim, { scale }, norm, lr, decay, window, rows);
  } catch (error) {
    return { refused: error.message };
  }
}

const PATIENCE = 400; // ms that a course which nobody wants any more may keep its worker

// `ask(question, answer)`: each optimizer has a worker. Of questions about one that wait, only the latest is answered.
function asking(source) {
  const handler = "onmessage = ({ data }) => postMessage(answerQuestion(data));";
  const file = URL.createObjectURL(new Blob([source, handler], { type: "text/javascript" }));
  const desks = new Map();
  const next = (desk) => {
    if (desk.busy || !desk.waiting) return;
    [desk.busy, desk.waiting] = [desk.waiting, null];
    desk.since = performance.now();
    desk.worker ??= new Worker(file);
    desk.worker.onmessage = ({ data }) => {
      const { answer } = desk.busy;
      desk.busy = null;
      answer(data);
      next(desk);
    };
    desk.worker.postMessage(desk.busy.question);
  };
  return (question, answer) => {
    if (!desks.has(question.name)) desks.set(question.name, {});
    const desk = desks.get(question.name);
    desk.waiting = { question, answer };
    if (desk.busy && performance.now() - desk.since > PATIENCE) {
      desk.worker.terminate();
      desk.worker = desk.busy = null;
    }
    try {
      next(desk);
    } catch {
      desk.busy = null; // a browser that allows files no workers
      answer(answerQuestion(question));
    }
  };
}
