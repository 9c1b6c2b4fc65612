import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { UserError } from '../base/index.ts'

/** A join token: which root the cluster has, and the secret that lets a node in. Source: moby/swarmkit, ca/config.go. */
export interface JoinToken {
  /** SHA-256 of the root certificate's PEM bytes, 50 characters of base 36. */
  readonly digest: string
  /** 25 characters of base 36, 128 random bits. */
  readonly secret: string
}

const digestLength = 50
const secretLength = 25
const base36 = /^[0-9a-z]+$/

/** Makes a token for clusters with this root: `SWMTKN-1-<digest>-<secret>`. */
export function createJoinToken(rootCertificatePem: string): string {
  return `SWMTKN-1-${digestOfRoot(rootCertificatePem)}-${toBase36(randomBytes(16), secretLength)}`
}

/** Reads a join token. Throws `invalidInput` with what is wrong with it, and never with the token itself. */
export function parseJoinToken(given: string): JoinToken {
  const text = given.trim()
  if (text === '') throw notToken('it is empty')
  if (text.startsWith('SWMKEY-')) throw notToken('it is an unlock key')
  if (!text.startsWith('SWMTKN-')) throw notToken('it does not begin with SWMTKN-')
  const [, version, ...parts] = text.split('-')
  if (version !== '1') throw notToken('only version 1 (SWMTKN-1-…) is understood')
  const [digest, secret] = parts
  if (digest === undefined || secret === undefined || parts.length !== 2) {
    throw notToken('it does not have the form SWMTKN-1-<digest>-<secret>')
  }
  if (digest.length !== digestLength || !base36.test(digest)) {
    throw notToken(`its digest is not ${digestLength} characters of 0-9a-z`)
  }
  if (secret.length !== secretLength || !base36.test(secret)) {
    throw notToken(`its secret is not ${secretLength} characters of 0-9a-z: was it cut off?`)
  }
  return { digest, secret }
}

/** Whether the token is for clusters with this root: what a joining node asks before it trusts anyone. */
export function isTokenForRoot(token: JoinToken, rootCertificatePem: string): boolean {
  return isSameSecret(token.digest, digestOfRoot(rootCertificatePem))
}

/** SHA-256 of a token, base64: what is kept of one that is no longer taken. */
export function tokenHashOf(token: string): string {
  return createHash('sha256').update(token.trim()).digest('base64')
}

/** Whether two secrets are equal, in a time that tells nothing about where they differ. */
export function isSameSecret(one: string, other: string): boolean {
  const hash = (text: string): Buffer => createHash('sha256').update(text).digest()
  return timingSafeEqual(hash(one), hash(other))
}

/** Makes a key that people keep to unlock managers: `SWMKEY-1-<43 base64 characters>`, 256 random bits. */
export function createUnlockKey(): string {
  return formatUnlockKey(randomBytes(unlockKeyBytes))
}

const unlockKeyBytes = 32

function formatUnlockKey(bytes: Buffer): string {
  return `SWMKEY-1-${bytes.toString('base64').replace(/=+$/, '')}`
}

/** Reads an unlock key as its 32 bytes. Throws `invalidInput`, never quoting the key. */
export function parseUnlockKey(given: string): Uint8Array {
  const text = given.trim()
  if (text === '') throw notUnlockKey('it is empty')
  if (text.startsWith('SWMTKN-')) throw notUnlockKey('it is a join token')
  if (!text.startsWith('SWMKEY-')) throw notUnlockKey('it does not begin with SWMKEY-')
  if (!text.startsWith('SWMKEY-1-')) throw notUnlockKey('only version 1 (SWMKEY-1-…) is understood')
  const bytes = Buffer.from(text.slice('SWMKEY-1-'.length), 'base64')
  // Written again it must be the same: the decoder skips what is no base64.
  if (bytes.length !== unlockKeyBytes || formatUnlockKey(bytes) !== text) {
    throw notUnlockKey('what follows SWMKEY-1- is not 43 characters of base64: was it cut off?')
  }
  return new Uint8Array(bytes)
}

function digestOfRoot(pem: string): string {
  return toBase36(createHash('sha256').update(pem).digest(), digestLength)
}

function toBase36(bytes: Buffer, length: number): string {
  return BigInt(`0x${bytes.toString('hex')}`)
    .toString(36)
    .padStart(length, '0')
}

function notToken(why: string): UserError {
  return new UserError('invalidInput', `invalid join token: ${why}`, {
    next: 'Copy it whole from `docker swarm join-token worker` (or manager) on a manager.',
  })
}

function notUnlockKey(why: string): UserError {
  return new UserError('invalidInput', `invalid unlock key: ${why}`, {
    next: 'Copy it whole from where it was kept; an unlocked manager shows it with `docker swarm unlock-key`.',
  })
}
