// Owns the nets and trains them, one epoch of each in turn, so that the page stays awake.

const SHOW_EVERY = 150; // Milliseconds from one look at the features of a net to the next.

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const loaded = WebAssembly.instantiateStreaming(fetch("page.wasm")).then(({ instance }) => instance.exports);

let ask; // Sends a request to the module and returns the answer.
let nets = []; // For each net how far it is.
let epochs = 0;
let running = false;
let scheduled = false;
let image = null;
let run = 0; // Number of the nets that were started last: the page ignores what is said of others.

loaded.then(
  (exports) => {
    ask = (request) => {
      const bytes = encoder.encode(JSON.stringify(request));
      const address = exports.room(bytes.length);
      new Uint8Array(exports.memory.buffer, address, bytes.length).set(bytes);
      const start = exports.answer();
      const text = decoder.decode(new Uint8Array(exports.memory.buffer, start, exports.answer_length()));
      const answer = JSON.parse(text);
      if (answer.error !== undefined) throw new Error(answer.error);
      return answer;
    };
    postMessage({ type: "ready" });
  },
  (error) => postMessage({ type: "problem", message: `The nets could not be loaded: ${error.message}` }),
);

const actions = {
  start({ settings, epochs: wanted, running: go, run: number }) {
    running = false;
    nets = [];
    run = number;
    const made = ask({ start: settings });
    nets = made.map(({ score }) => ({ epoch: score.epoch, failed: false, shown: -Infinity }));
    epochs = wanted;
    running = go;
    postMessage({ type: "made", run, nets: made });
    nets.forEach((_, net) => show(net));
    classify();
    schedule();
  },
  run({ running: go }) {
    running = go;
    schedule();
  },
  classify({ image: pixels }) {
    image = pixels;
    classify();
  },
  sample({ number }) {
    const sample = ask({ sample: number });
    postMessage({ type: "sample", ...sample });
  },
};

onmessage = async ({ data }) => {
  await loaded;
  try {
    actions[data.type](data);
  } catch (error) {
    postMessage({ type: "problem", message: inWords(error) });
  }
};

/** What the module says itself, or that it has broken: then it is of no more use. */
function inWords(error) {
  if (!(error instanceof WebAssembly.RuntimeError)) return error.message;
  return `The nets have broken down (${error.message}). Load the page anew.`;
}

function schedule() {
  if (!running || scheduled) return;
  scheduled = true;
  setTimeout(() => {
    scheduled = false;
    if (running) train();
    schedule();
  });
}

/** Trains the net that is furthest behind. */
function train() {
  let next = -1;
  nets.forEach(({ epoch, failed }, net) => {
    if (!failed && epoch < epochs && (next < 0 || epoch < nets[next].epoch)) next = net;
  });
  if (next < 0) {
    running = false;
    nets.forEach((_, net) => show(net));
    classify();
    postMessage({ type: "done", run });
    return;
  }
  const net = nets[next];
  try {
    const score = ask({ train: next });
    net.epoch = score.epoch;
    postMessage({ type: "score", run, net: next, score });
  } catch (error) {
    net.failed = true;
    postMessage({ type: "failed", run, net: next, message: inWords(error) });
  }
  if (performance.now() - net.shown > SHOW_EVERY) show(next);
  if (next === 0) classify();
}

function show(net) {
  nets[net].shown = performance.now();
  postMessage({ type: "features", run, net, units: ask({ features: net }) });
}

function classify() {
  if (image && nets.length > 0) postMessage({ type: "classes", run, nets: ask({ classify: image }) });
}
