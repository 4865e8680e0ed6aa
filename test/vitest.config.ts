import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    root: new URL("..", import.meta.url).pathname,
    include: ["test/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    pool: "forks",
    // Tests start threads and processes of their own and wait for them; two files at once keep two cores busy.
    maxWorkers: 2,
    coverage: {
      provider: "v8",
      include: ["dist/**/*.js"],
      reporter: ["text", "json-summary"],
      reportsDirectory: "coverage",
    },
  },
});
