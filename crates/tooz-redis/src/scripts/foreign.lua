-- What another program has put at a place of ours, of another type than ours, is as good as nothing there: it must not make a script fail that
-- concerns more than that place. Everything else that goes wrong is raised as it was.
local function unless_foreign(what, ...)
  local done, result = pcall(what, ...)
  if done then
    return result
  end
  local said = type(result) == 'table' and result.err or tostring(result)
  if not string.find(said, 'WRONGTYPE', 1, true) then
    error(result, 0)
  end
  return nil
end
