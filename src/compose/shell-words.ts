import { UserError } from '../base/index.ts'

/** Splits a command line into words as a shell does, without expanding anything. Throws on an open quote. */
export function splitShellWords(text: string): string[] {
  const words: string[] = []
  let word: string | undefined
  let at = 0
  while (at < text.length) {
    const char = text[at] ?? ''
    if (/\s/.test(char)) {
      if (word !== undefined) words.push(word)
      word = undefined
    } else if (char === '#' && word === undefined) {
      while (at < text.length && text[at] !== '\n') at++
    } else if (char === "'") {
      const end = text.indexOf("'", at + 1)
      if (end < 0) throw openQuote(text)
      word = (word ?? '') + text.slice(at + 1, end)
      at = end
    } else if (char === '"') {
      word ??= ''
      for (at++; text[at] !== '"'; at++) {
        if (at >= text.length) throw openQuote(text)
        if (text[at] === '\\') at++
        word += text[at] ?? ''
      }
    } else if (char === '\\') {
      at++
      if (at >= text.length) throw openQuote(text)
      word = (word ?? '') + (text[at] ?? '')
    } else word = (word ?? '') + char
    at++
  }
  if (word !== undefined) words.push(word)
  return words
}

function openQuote(text: string): UserError {
  return new UserError('invalidInput', `the command "${text}" ends inside a quote`, {
    next: 'Close the quote, or write the command as a list.',
  })
}
