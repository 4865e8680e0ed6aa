import { describe, expect, it } from "vitest";
import { writeConfigTemplate } from "../../dist/config/init.js";
import { resolveConfig } from "../../dist/config/resolve.js";
import { CONFIG_KEYS } from "../../dist/config/schema.js";
import { listSettings } from "../../dist/config/show.js";
import { readYaml } from "../../dist/config/yaml.js";

describe.each(["edge", "local", "cloud"] as const)("the template for %s", (profile) => {
  it("reads back as the profile and nothing else by hand", async () => {
    const text = await writeConfigTemplate(profile);
    const config = await resolveConfig({ file: { path: "quant.yaml", text } });
    expect(config.values).toEqual((await resolveConfig({ flags: { profile } })).values);
    expect(
      listSettings(config)
        .filter(({ source }) => source === "file")
        .map(({ key }) => key),
    ).toEqual(["profile"]);
  });

  it("names every key, and each line is valid once uncommented, with the value it has anyway", async () => {
    const text = await writeConfigTemplate(profile);
    const uncommented = text.replaceAll(/^#(?=\w)/gm, "");
    const { given, problems } = readYaml(uncommented, "quant.yaml", "file");
    expect(problems).toEqual([]);
    expect(given.map(({ key }) => key)).toEqual(CONFIG_KEYS);
    const standard = (await resolveConfig({ flags: { profile } })).values;
    for (const { key, value } of given) {
      const { values } = await resolveConfig({ config: { profile, [key]: value } });
      expect(values).toEqual(standard);
    }
    for (const line of text.split("\n")) expect(line.length).toBeLessThanOrEqual(100);
  });
});

describe("listSettings", () => {
  it("shows every value with where it came from", async () => {
    const config = await resolveConfig({
      flags: { bit_width: 2 },
      environment: { ARROW_QUANT_NUM_THREADS: "3" },
      file: { path: "quant.yaml", text: "\nmethod: rtn\n" },
    });
    const rows = Object.fromEntries(listSettings(config).map((row) => [row.key, row]));
    expect(Object.keys(rows)).toEqual(CONFIG_KEYS);
    expect(rows["bit_width"]).toEqual({
      key: "bit_width",
      value: 2,
      text: "2",
      source: "flag",
      origin: "flag --bit-width",
    });
    expect(rows["num_threads"]?.origin).toBe("environment ARROW_QUANT_NUM_THREADS");
    expect(rows["method"]).toMatchObject({ text: "rtn", origin: "file quant.yaml:2" });
    expect(rows["group_size"]?.origin).toBe("profiles/local.yaml");
    expect(rows["variant"]).toMatchObject({ text: "null", origin: "default" });
  });
});
