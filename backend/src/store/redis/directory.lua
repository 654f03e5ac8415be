-- KEYS: a listing's hash and its lines; of a Session also the set of the names of its user's.
-- ARGV: the term; what is done (anew, change or close); the version before and after; the
-- milliseconds that the listing lives, or that its term is remembered; the name in the set; `=` and
-- the head, or nothing where that has not changed; the lines that there are after it; how many of the lines
-- that follow come. The others go.
-- Answers what became of it: done, behind or stale.
local FIRST = 10
local listing, lines, names = KEYS[1], KEYS[2], KEYS[3]
local term, what, before, after, lives, name, head, total, added = unpack(ARGV, 1, FIRST - 1)

local found = redis.call('HMGET', listing, 'term', 'version')
local has, version = found[1], found[2]
if has and later(has, term) then return 'stale' end
if has ~= term then version = false end

if what == 'close' then
  redis.call('DEL', listing)
  redis.call('UNLINK', lines)
  if names then redis.call('SREM', names, name) end
  if lives ~= '0' then
    redis.call('HSET', listing, 'term', term)
    redis.call('PEXPIRE', listing, lives)
  end
  return 'done'
end

if version ~= after then
  if what == 'anew' then
    -- A copy of one that was given again, and came late.
    if version and more(version, after) then return 'behind' end
    redis.call('DEL', listing)
    redis.call('UNLINK', lines)
  elseif version ~= before then
    return 'behind'
  end
  local last = FIRST + added - 1
  for at = FIRST, last do redis.call('ZADD', lines, 0, ARGV[at]) end
  for at = last + 1, #ARGV do redis.call('ZREM', lines, ARGV[at]) end
  redis.call('HSET', listing, 'term', term, 'version', after)
  if head ~= '' then redis.call('HSET', listing, 'head', string.sub(head, 2)) end
end

redis.call('PEXPIRE', listing, lives)
redis.call('PEXPIRE', lines, lives)
if names then
  redis.call('SADD', names, name)
  -- Others may write it too, for longer.
  if redis.call('PTTL', names) < tonumber(lives) then redis.call('PEXPIRE', names, lives) end
end
if redis.call('ZCARD', lines) ~= tonumber(total) then return 'behind' end
return 'done'
