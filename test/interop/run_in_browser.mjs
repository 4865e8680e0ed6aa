/**
 * Runs models in onnxruntime-web, in a headless browser, and prints of each the mean over the runs of its relative
 * error, as JSON.
 *
 * run_in_browser.mjs FOLDER_OF_NODE_MODULES RUNS.json MODEL.onnx …
 *
 * RUNS: [{ feeds: { NAME: { type, dims, data } }, expected: number[] }, …]; a model has one output.
 */
import { createReadStream, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, runsPath, ...models] = process.argv.slice(2);
const require = createRequire(join(resolve(folder), "package.json"));
const load = async (name) => (await import(pathToFileURL(require.resolve(name)).href)).default;

const TYPES = { ".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const RUNTIME = resolve(folder, "node_modules/onnxruntime-web/dist");

const server = createServer((request, response) => {
  const path = new URL(request.url, "http://localhost").pathname;
  response.setHeader("content-type", TYPES[extname(path)] ?? "application/octet-stream");
  if (path === "/") return response.setHeader("content-type", "text/html").end("<!doctype html><title>run</title>");
  const model = models[Number(/^\/(\d+)\.onnx$/.exec(path)?.[1] ?? -1)];
  if (model !== undefined) return createReadStream(model).pipe(response);
  // Names of files alone: nothing outside the runtime's folder is served.
  const file = createReadStream(join(RUNTIME, path.split("/").at(-1)));
  return file.on("error", () => response.writeHead(404).end()).pipe(response);
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));

const chromium = await load("@sparticuz/chromium");
const puppeteer = await load("puppeteer-core");
const browser = await puppeteer.launch({
  executablePath: await chromium.executablePath(),
  args: [...chromium.args, "--no-sandbox"],
  headless: "shell",
});
try {
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const runs = JSON.parse(readFileSync(runsPath, "utf8"));
  const predictionErrors = [];
  for (const index of models.keys()) {
    await page.evaluate(openSession, `/${index}.onnx`);
    const errors = [];
    for (const { feeds, expected } of runs) {
      const found = await page.evaluate(runSession, feeds);
      errors.push(norm(expected.map((value, at) => value - found[at])) / norm(expected));
    }
    predictionErrors.push(errors.reduce((sum, each) => sum + each, 0) / errors.length);
  }
  process.stdout.write(JSON.stringify({ browser: await browser.version(), predictionErrors }));
} finally {
  await browser.close();
  server.close();
}

/** In the page. */
async function openSession(url) {
  const runtime = "/ort.wasm.min.mjs";
  const ort = await import(runtime);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/";
  const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
  window.ort = ort;
  window.session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
}

/** In the page. */
async function runSession(feeds) {
  const tensors = Object.entries(feeds).map(([name, { type, dims, data }]) => {
    const values = type === "int64" ? BigInt64Array.from(data, BigInt) : Float32Array.from(data);
    return [name, new window.ort.Tensor(type, values, dims)];
  });
  const outputs = await window.session.run(Object.fromEntries(tensors));
  return [...Object.values(outputs)[0].data];
}

function norm(values) {
  return Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
}
