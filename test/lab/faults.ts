/** What is wrong with a lab's cables, as frames that are dropped between hosts. */
export interface Cut {
  /** Number of the host whose frames are lost, or `any`. */
  readonly from: number | 'any'
  readonly to: number | 'any'
}

/** Frames of this host are late and some are lost, each way. */
export interface Delay {
  readonly delayMs: number
  readonly lossPercent?: number
  readonly jitterMs?: number
}

/** The fabric's rules for these cuts, whatever was there. A host's port has another name while its cable is slow. */
export function renderCuts(cuts: readonly Cut[]): string {
  const rules = cuts.map(({ from, to }) => {
    const matches = [
      from === 'any' ? '' : `iifname { "h${from}", "d${from}" }`,
      to === 'any' ? '' : `oifname { "h${to}", "d${to}" }`,
    ]
    return `    ${matches.filter((match) => match !== '').join(' ')} drop`
  })
  return [
    'table bridge lab',
    'delete table bridge lab',
    'table bridge lab {',
    '  chain forward {',
    '    type filter hook forward priority 0; policy accept;',
    ...rules,
    '  }',
    '}',
    '',
  ].join('\n')
}
