/**
 * Settings whose keys have dots, `thermodynamic.boundary_smoothing.window`, written as mappings of mappings. Within the
 * program the dotted key is the setting's name, so that each has an origin of its own.
 */

/** Keys below dots as YAML nests them, all optional: `{ a?: { b?: T } }` for `"a.b": T`. */
export type Nested<T> = {
  [Head in Extract<keyof T, string> extends `${infer First}.${string}` ? First : never]?: NestedBelow<T, Head>;
} & T;

type Below<T, Head extends string> = {
  [Key in keyof T as Key extends `${Head}.${infer Rest}` ? Rest : never]?: T[Key];
};

type NestedBelow<T, Head extends string> = Nested<Below<T, Head>> | null;

/** One entry of a mapping, or of one inside of it. */
export interface Leaf {
  /** The whole key, with dots. */
  readonly key: string;
  readonly value: unknown;
  /** The mappings' own keys on the way to it, from the outermost. */
  readonly path: readonly string[];
}

/**
 * The settings of a mapping. Mappings under a key that `isSection` names are opened, an empty one (`null`, as YAML
 * reads it) holds nothing; whatever else stands there is a leaf, for the schema to refuse.
 */
export function listLeaves(
  settings: Readonly<Record<string, unknown>>,
  isSection: (key: string) => boolean,
  above: readonly string[] = [],
): Leaf[] {
  return Object.entries(settings).flatMap(([name, value]): Leaf[] => {
    const path = [...above, name];
    const key = path.join(".");
    if (!isSection(key)) return [{ key, value, path }];
    if (value === null || value === undefined) return [];
    return isMapping(value) ? listLeaves(value, isSection, path) : [{ key, value, path }];
  });
}

function isMapping(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * The entries of `leaves` whose keys have dots, as a tree; keys without dots are left out.
 * @param join makes one node of what stands below `key`
 */
export function nestKeys<T>(
  leaves: Readonly<Record<string, T>>,
  join: (key: string, below: Readonly<Record<string, T>>) => T,
): Record<string, T> {
  const nest = (entries: readonly (readonly [string, T])[], above: string): Record<string, T> => {
    const heads = new Set(entries.map(([key]) => key.split(".")[0] as string));
    return Object.fromEntries(
      [...heads].map((head) => {
        const leaf = entries.find(([key]) => key === head);
        if (leaf !== undefined) return leaf;
        const below = entries
          .filter(([key]) => key.startsWith(`${head}.`))
          .map(([key, value]) => [key.slice(head.length + 1), value] as const);
        return [head, join(above + head, nest(below, `${above}${head}.`))];
      }),
    );
  };
  return nest(
    Object.entries(leaves).filter(([key]) => key.includes(".")),
    "",
  );
}
