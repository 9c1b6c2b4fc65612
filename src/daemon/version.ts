import { readFileSync } from 'node:fs'

/** Version of Skep, as package.json beside the sources or the bundle says. */
export const version: string = readVersion()

function readVersion(): string {
  const json: unknown = JSON.parse(
    readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
  )
  if (
    typeof json === 'object' &&
    json !== null &&
    'version' in json &&
    typeof json.version === 'string'
  )
    return json.version
  return 'unknown'
}
