/** A headless browser and the runtime of the web: `.browser` beside this file, filled by npm on first use. */
import { isCi } from "./environment.js";
import { installPackages } from "./npm-environment.js";

/** Chromium as a package of npm, for machines without a browser; its driver; ONNX Runtime as web pages load it. */
const PACKAGES = {
  "@sparticuz/chromium": "147.0.0",
  "onnxruntime-web": "1.30.0",
  "puppeteer-core": "24.43.1",
};

/** The folder whose node_modules hold them; null, with the reason printed, where they cannot be had. With CI=true that is an error. */
export async function prepareBrowser(): Promise<string | null> {
  try {
    if (process.platform !== "linux" || process.arch !== "x64")
      throw new Error("the browser is built for Linux on x64");
    return await installPackages(".browser", PACKAGES);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    if (isCi()) throw new Error(`CI is set, so the browser checks must run: ${reason}`, { cause: error });
    console.warn(`browser checks skipped: ${reason}`);
    return null;
  }
}
