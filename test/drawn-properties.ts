/**
 * Loaded before a test file with properties: `SKEP_PROPERTY_SEED` (a whole number) draws their examples, so that a run which failed can
 * be run again. Without it they are drawn by chance, as fast-check does by itself.
 */
import fc from 'fast-check'

const seed = process.env['SKEP_PROPERTY_SEED']
if (seed !== undefined) fc.configureGlobal({ ...fc.readConfigureGlobal(), seed: Number(seed) })
