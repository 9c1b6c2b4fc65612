import { type Random, UserError } from '../../base/index.ts'

/** Throws unless `name` can be a service's or network's. */
export function checkDnsName(name: string): void {
  if (!/^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$/.test(name)) {
    throw new UserError('invalidInput', 'name must be valid as a DNS name component')
  }
  if (name.length > 63) {
    throw new UserError('invalidInput', 'name must be 63 characters or fewer')
  }
}

/** Throws unless `name` can be a secret's or config's. */
export function checkFileName(name: string | undefined): string {
  if (!name) throw new UserError('invalidInput', 'name must be provided')
  if (name.length > 64 || !/^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?$/.test(name)) {
    throw new UserError(
      'invalidInput',
      'invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]',
    )
  }
  return name
}

const host = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])'
const domain = `(?:(?:${host}(?:\\.${host})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?)`
const part = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*'
const imagePattern = new RegExp(
  `^(?:${domain}/)?${part}(?:/${part})*(?::[\\w][\\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$`,
)
/** Longest image name, tag and digest apart, that the Engine takes. */
const imageLengthMax = 255

/** Whether the text is an image's name, as the Engine's reference grammar has it. */
export function isImageReference(text: string): boolean {
  const [name = ''] = text.split('@')
  if (name.length > imageLengthMax + 129 || /^[a-f0-9]{64}$/.test(text)) return false
  return imagePattern.test(text)
}

const qualities =
  'amber brave calm clever eager gentle golden happy keen lively merry nimble quiet swift'.split(
    ' ',
  )
const things =
  'acacia aster clover comb daisy drone garden heather hive lavender linden meadow nectar pollen'.split(
    ' ',
  )

/** A name for a service that was given none: `swift_clover`, with a number where that is taken. */
export function madeUpName(random: Random, isTaken: (name: string) => boolean): string {
  const pick = (words: readonly string[]) => words[random.below(words.length)] ?? ''
  const name = `${pick(qualities)}_${pick(things)}`
  if (!isTaken(name)) return name
  for (let number = 2; ; number++) if (!isTaken(`${name}${number}`)) return `${name}${number}`
}
