/**
 * Makes a checkout ready to run: dependencies where they are missing, a build where sources are newer than it.
 * Plain Node, since nothing else is there yet.
 */
import { execSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** Time of the newest file below the paths. */
function newestMtime(...paths) {
  let newest = 0;
  for (const path of paths.map((name) => join(root, name))) {
    const found = statSync(path);
    const times = found.isDirectory()
      ? readdirSync(path, { recursive: true, withFileTypes: true })
          .filter((entry) => entry.isFile())
          .map((entry) => statSync(join(entry.parentPath, entry.name)).mtimeMs)
      : [found.mtimeMs];
    newest = Math.max(newest, ...times);
  }
  return newest;
}

function run(command, why) {
  console.error(`${why}: ${command}`);
  execSync(command, { cwd: root, stdio: ["ignore", 2, 2] });
}

const marker = join(root, "node_modules/.package-lock.json");
if (!existsSync(marker) || statSync(marker).mtimeMs < statSync(join(root, "package-lock.json")).mtimeMs) {
  // Not `npm ci`: it insists on the lock file naming every platform's optional binaries, which not every registry has.
  run("npm install --no-save", "installing dependencies");
}
const built = join(root, "dist/built");
if (!existsSync(built) || statSync(built).mtimeMs < newestMtime("src", "assembly", "asconfig.json", "tsconfig.json")) {
  run("npm run build", "building");
}
