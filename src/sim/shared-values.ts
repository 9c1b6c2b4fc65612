import { plainValues, type ValueCodec } from '../store/index.ts'

/** Values whose parsed form is kept: all managers hear of one within some seconds, or read it anew. */
const keptMax = 1_000

/**
 * Values as they are. Who witnesses a transaction and the managers that hear of it read the same text: it is parsed once, and
 * they share what comes of it, as everybody does who looks at one store. Nothing in a view is ever changed.
 */
export function sharedValues(): ValueCodec {
  const parsedByText = new Map<string, unknown>()
  return {
    ...plainValues,
    parse(text) {
      const known = parsedByText.get(text)
      if (known !== undefined) return known
      const parsed: unknown = JSON.parse(text)
      if (parsedByText.size >= keptMax) parsedByText.clear()
      parsedByText.set(text, parsed)
      return parsed
    },
  }
}
