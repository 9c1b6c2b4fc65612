/** Reads lines of `NAME=value`; a name alone takes the shell's value. Quotes are part of the value, as in docker. */
export function parseEnvFile(text: string): Readonly<Record<string, string | undefined>> {
  const pairs: Record<string, string | undefined> = {}
  for (const line of text.replace(/^\uFEFF/, '').split(/\r?\n/)) {
    const bare = line.trimStart()
    if (bare === '' || bare.startsWith('#')) continue
    const at = bare.indexOf('=')
    if (at < 0) pairs[bare.trim()] = undefined
    else pairs[bare.slice(0, at)] = bare.slice(at + 1)
  }
  return pairs
}
