/** Keys of the metadata that this program writes and reads again; other readers pass over them. */

/** By which our own output is known. */
export const VERSION_KEY = "arrowquant.version";

/** JSON of the files that the model was read from, and their fingerprint. */
export const SOURCE_KEY = "arrowquant.source";

/** What was taken off every name of the source. */
export const PREFIX_KEY = "arrowquant.name_prefix";
