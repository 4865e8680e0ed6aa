/** Mixed precision's solver on a model of the size of Flux: 500 layers, 30 candidates each. */
import { solveKnapsack } from "../../dist/plan/knapsack.js";
import { seedRandom } from "../../dist/plan/random.js";

const LAYER_COUNT = 500;
const WIDTHS = [2, 3, 4, 5, 6, 8];
const GROUP_SIZES = [16, 32, 64, 128, 256];

/** Layers of up to 47 million weights, their errors over three orders of magnitude. */
function makeItems() {
  const random = seedRandom(1);
  return Array.from({ length: LAYER_COUNT }, () => {
    const weightCount = 3072 * 1024 * (1 + random.below(15));
    const sensitivity = 10 ** (3 * random.fraction());
    return WIDTHS.flatMap((bits) =>
      GROUP_SIZES.map((groupSize) => ({
        size: (weightCount * bits) / 8 + (weightCount / groupSize) * 1.5,
        cost: sensitivity * 4 ** -bits * (1 + 0.15 * Math.log2(groupSize / 16)) * (0.9 + 0.2 * random.fraction()),
        weightCount,
      })),
    );
  });
}

export function benchKnapsack() {
  const items = makeItems();
  const weightCount = items.reduce((sum, [first]) => sum + first.weightCount, 0);
  console.log(`allocation of bits: ${LAYER_COUNT} layers x ${items[0].length} candidates, ${weightCount} weights`);
  console.log("  target bpw   asked gap   stated gap    of target      time");
  for (const bitsPerWeight of [2.5, 3, 4, 6]) {
    for (const gap of [0.001, 0]) {
      const capacity = (bitsPerWeight * weightCount) / 8;
      const startedAt = performance.now();
      const solution = solveKnapsack(items, capacity, gap);
      const milliseconds = performance.now() - startedAt;
      console.log(
        `  ${bitsPerWeight.toFixed(1).padStart(10)}   ${String(gap).padStart(9)}   ${solution.gap.toExponential(2).padStart(10)}` +
          `   ${((100 * solution.size) / capacity).toFixed(4).padStart(9)} %   ${milliseconds.toFixed(0).padStart(5)} ms`,
      );
    }
  }
}
