import { SealedValues, type ValueKey } from './sealed-values.ts'

/** How a store that keeps texts writes its values. `objectKey` says what a value belongs to. */
export interface ValueCodec {
  encode(text: string, objectKey: string): string
  /** Throws SealError. */
  decode(value: string, objectKey: string): string
  /** How the text is read again. What it returns is not changed by anybody. Default `JSON.parse`. */
  readonly parse?: (text: string) => unknown
}

/** As they are: for tests and the simulator. */
export const plainValues: ValueCodec = { encode: (text) => text, decode: (value) => value }

/** No JSON begins so. */
const sealedStart = 'sealed '

/** Sealed, in base64. Reads values that an earlier version wrote as they are, too. */
export function sealedValues(keys: readonly ValueKey[]): ValueCodec {
  const sealed = new SealedValues(keys)
  return {
    encode: (text, objectKey) => sealedStart + sealed.seal(text, objectKey).toString('base64'),
    decode: (value, objectKey) =>
      value.startsWith(sealedStart)
        ? sealed.open(Buffer.from(value.slice(sealedStart.length), 'base64'), objectKey)
        : value,
  }
}
