import { readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { type ListedKey, listKeys } from '../src/compose/key-list.ts'
import type { Support } from '../src/compose/shape.ts'

/** The page whose table is made from the loader's own. */
const page = fileURLToPath(new URL('../docs/compose.md', import.meta.url))
const begin =
  '<!-- The table is written by `node scripts/compose-keys.ts`; change src/compose/keys.ts. -->'
const end = '<!-- End of the table. -->'

/** The page with its table as the loader has it. Throws where it has no place for one. */
export function withKeys(text: string): string {
  const from = text.indexOf(begin)
  const to = text.indexOf(end)
  if (from < 0 || to < from) throw new Error(`${page} has no place for the table of keys`)
  return `${text.slice(0, from)}${begin}\n\n${tables()}\n\n${text.slice(to)}`
}

function tables(): string {
  const keys = listKeys()
  const sections = new Map<string, ListedKey[]>()
  for (const key of keys) {
    const section = key.path.split(/[.[]/)[0] ?? ''
    const isTop = !key.path.includes('.') && !key.path.includes('[')
    const name = isTop ? '' : section
    sections.set(name, [...(sections.get(name) ?? []), key])
  }
  return [...sections]
    .map(([section, rows]) => {
      const title = section === '' ? '### Top level' : `### In ${section}`
      const short = (path: string) =>
        section === '' || path === section
          ? path
          : path.slice(section.length).replace(/^\.\*\.|^\[\]\./, '')
      const lines = rows.map(({ path, compose, stack, composeAs, stackAs }) => {
        const cells = [
          composeAs === undefined ? cell(compose) : `as \`${short(composeAs)}\``,
          stackAs === undefined ? cell(stack) : `as \`${short(stackAs)}\``,
        ]
        return `| \`${short(path)}\` | ${cells.join(' | ')} |`
      })
      return [
        title,
        '',
        '| Key | `skep compose` | `skep stack` |',
        '| --- | --- | --- |',
        ...lines,
      ].join('\n')
    })
    .join('\n\n')
}

function cell(support: Support): string {
  switch (support.level) {
    case 'supported':
      return 'yes'
    case 'warned':
      return support.why === '' ? 'warned: no effect' : `warned: no effect, ${support.why}`
    case 'refused':
      return `refused: ${support.next}`
  }
}

async function main(): Promise<void> {
  const before = await readFile(page, 'utf8')
  const after = withKeys(before)
  if (after !== before) await writeFile(page, after)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main()
