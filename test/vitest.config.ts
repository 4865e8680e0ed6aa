import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    root: new URL("..", import.meta.url).pathname,
    include: ["test/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Tests start worker threads of their own on machines with few cores.
    pool: "forks",
    coverage: {
      provider: "v8",
      include: ["dist/**/*.js"],
      reporter: ["text", "json-summary"],
      reportsDirectory: "coverage",
    },
  },
});
