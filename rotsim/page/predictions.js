// Courses are computed beside the page, in a worker made of the page's own numeric core; without workers, in the page.
"use strict";

function answerQuestion({ name, spec, rotational, dim, scale, norm, lr, decay, window }) {
  const optimizer = OPTIMIZERS.find((one) => one.name === name);
  try {
    return predictCourse(optimizer, spec, rotational, dim, { scale }, norm, lr, decay, window);
  } catch (error) {
    return { refused: error.message };
  }
}

// `ask(question, answer)`; of questions about one optimizer, only the latest that waits is answered.
function asking(source) {
  let worker;
  try {
    const handler = "onmessage = ({ data }) => postMessage({ id: data.id, found: answerQuestion(data.question) });";
    worker = new Worker(URL.createObjectURL(new Blob([source, handler], { type: "text/javascript" })));
  } catch {
    return (question, answer) => answer(answerQuestion(question));
  }
  const waiting = new Map();
  let busy = null;
  let count = 0;
  const next = () => {
    const [first] = waiting;
    if (busy || !first) return;
    waiting.delete(first[0]);
    count += 1;
    busy = { id: count, answer: first[1].answer };
    worker.postMessage({ id: count, question: first[1].question });
  };
  worker.onmessage = ({ data }) => {
    const { answer } = busy;
    busy = null;
    answer(data.found);
    next();
  };
  return (question, answer) => {
    waiting.delete(question.name);
    waiting.set(question.name, { question, answer });
    next();
  };
}
